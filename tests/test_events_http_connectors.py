"""Events that OpenFaaS' connectors bring, told by their own headers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from tests.child import Process
from tests.otlp_sink import otlp_sink
from tests.processes import run_function
from tests.wire import Answer, call

pytestmark = pytest.mark.anyio

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
HANDLER = """
from faasbase import Event, current_delivery, on_event


@on_event("orders", "grüße")
async def fulfil(event: Event[dict]) -> None:
    delivery = current_delivery()
    print("fulfilled", event.type, event.id, event.source, event.data, delivery.key)
    print("delivered", delivery.destination, delivery.position, delivery.attempt, delivery.headers.get("region"))


@on_event("order.created")
async def created(event: Event[dict]) -> None:
    print("created", event.id, event.source, event.subject, event.extensions, event.data)


@on_event("cron-function")
async def nightly(event: Event[None]) -> None:
    print("nightly", event.id, event.source, event.data)


@on_event("note")
async def note(event: Event[str]) -> None:
    print("noted", repr(event.data), event.id, event.source)
"""
SURFACE = HANDLER + '\n\nasync def handle() -> str:\n    return "a call"\n'
KAFKA = {
    "X-Topic": "orders",
    "X-Connector": "connector-sdk",
    "X-Kafka-Partition": "3",
    "X-Kafka-Offset": "1042",
    "Content-Type": "text/plain",
}
CE = {
    "X-Kafka-Ce_id": "e-1",
    "X-Kafka-Ce_source": "/shop/gr\u00fc\u00df".encode().decode("latin-1"),
    "X-Kafka-Ce_type": "order.created",
    "X-Kafka-Ce_specversion": "1.0",
    "X-Kafka-Ce_subject": "50%25",
    "X-Kafka-Ce_region": "eu",
    "X-Kafka-Content-Type": "application/json",
}


@pytest.fixture(scope="module")
async def function() -> AsyncIterator[Process]:
    """Run a function that has a surface beside its handlers."""
    async with run_function(SURFACE) as process:
        await process.ready()
        yield process


async def bring(function: Process, headers: Mapping[str, str], body: bytes = b"", method: str = "POST") -> Answer:
    """Bring a message as a connector does."""
    return await call(function.port, "/", method=method, headers=headers, body=body)


async def test_plain_message_of_kafka_is_an_event_of_its_topic(function: Process) -> None:
    """Its id is where it stands, and its data is JSON although the connector calls everything text."""
    headers = {**KAFKA, "X-Kafka-Key": "b-17", "X-Kafka-Region": "eu"}
    assert (await bring(function, headers, b'{"id": 1}')).status == 204
    await function.log_line("fulfilled orders orders/3/1042 kafka:orders {'id': 1} b'b-17'")
    await function.log_line("delivered orders orders/3/1042 1 eu")


@pytest.mark.parametrize(
    ("key", "encoding", "shown"),
    [("AP8=", "b64", r"b'\x00\xff'"), ("AP8=", "", "b'AP8='"), ("no base64", "b64", "b'no base64'")],
)
async def test_key_may_be_in_base64(function: Process, key: str, encoding: str, shown: str) -> None:
    """``X-Kafka-Key-Enc`` says so; a message's own header of that name does no harm."""
    headers = {**KAFKA, "X-Kafka-Key": key, **({"X-Kafka-Key-Enc": encoding} if encoding else {})}
    assert (await bring(function, headers, b"{}")).status == 204
    await function.log_line(f"{{}} {shown}")


async def test_attributes_among_the_messages_headers_make_its_event(function: Process) -> None:
    """As the Kafka binding has them, in UTF-8 and not percent-encoded; the topic needs no handler then."""
    assert (await bring(function, {**KAFKA, "X-Topic": "all-orders", **CE}, b'{"id": 2}')).status == 204
    await function.log_line("created e-1 /shop/gr\u00fc\u00df 50%25 {'region': 'eu'} {'id': 2}")


@pytest.mark.parametrize("header", ["X-Kafka-Content-Type", "Content-Type"])
async def test_structured_event_may_be_in_the_message(function: Process, header: str) -> None:
    """By the message's content type, or by the one that the site has the connector say of all."""
    body = b'{"specversion":"1.0","id":"s-1","source":"/s","type":"order.created","data":{"id":3}}'
    headers = {**KAFKA, "X-Topic": "all-orders", header: "application/cloudevents+json"}
    assert (await bring(function, headers, body)).status == 204
    await function.log_line("created s-1 /s None {} {'id': 3}")


async def test_cron_brings_an_event_without_data(function: Process) -> None:
    """No body, no content type, and the call's id, since each run is another event."""
    headers = {"X-Topic": "cron-function", "X-Connector": "cron-connector", "X-Call-Id": "call-1"}
    assert (await bring(function, headers)).status == 204
    await function.log_line("nightly call-1 cron-connector:cron-function None")
    assert (await bring(function, {**headers, "X-Call-Id": "call-2"})).status == 204
    await function.log_line("nightly call-2 ")


async def test_nats_connector_has_the_subject_for_its_topic(function: Process) -> None:
    """The body is the data; text where the handler wants that."""
    headers = {"X-Topic": "note", "X-Connector": "connector-sdk", "X-Call-Id": "n-1", "Content-Type": "text/plain"}
    assert (await bring(function, headers, b'"quoted"')).status == 204
    await function.log_line("""noted '"quoted"' n-1 connector-sdk:note""")


async def test_topic_is_read_in_utf8(function: Process) -> None:
    """As the connector has written it."""
    assert (
        await bring(function, {**KAFKA, "X-Topic": "gr\u00fc\u00dfe".encode().decode("latin-1")}, b"{}")
    ).status == 204
    await function.log_line("fulfilled gr\u00fc\u00dfe gr\u00fc\u00dfe/3/1042")


@pytest.mark.parametrize(
    "place", [{"X-Kafka-Partition": "x"}, {"X-Kafka-Offset": "9" * 30}, {"X-Kafka-Offset": "\u00b2"}]
)
async def test_place_that_is_none_is_not_believed(function: Process, place: dict[str, str]) -> None:
    """The call's id takes its part."""
    assert (await bring(function, {**KAFKA, **place, "X-Call-Id": "p-1"}, b"{}")).status == 204
    await function.log_line("fulfilled orders p-1 connector-sdk:orders")


@pytest.mark.parametrize(
    ("headers", "method"),
    [
        ({"X-Topic": "unheard.of", "X-Connector": "connector-sdk"}, "POST"),
        ({"X-Topic": "unheard.of", "X-Kafka-Content-Type": "application/json", "X-Kafka-Ce_region": "eu"}, "POST"),
        ({"X-Kafka-Ce_type": "order.created"}, "POST"),
        (KAFKA, "PUT"),
    ],
)
async def test_other_topics_are_calls_of_the_surface(function: Process, headers: dict[str, str], method: str) -> None:
    """A function may be annotated with a topic for its surface's sake."""
    assert (await bring(function, headers, method=method)).json() == "a call"


async def test_message_that_does_not_validate_is_given_up(function: Process) -> None:
    """A 4xx, which no queue worker sends again."""
    assert (await bring(function, KAFKA, b"[]")).status == 422
    assert (await bring(function, KAFKA, b"{")).status == 400
    lacking = {name: value for name, value in CE.items() if name != "X-Kafka-Ce_source"}
    answer = await bring(function, {**KAFKA, **lacking}, b"{}")
    assert (answer.status, answer.json()["errors"][0]["field"]) == (400, "ce_source")


async def test_function_without_a_surface_takes_every_topic_for_an_event() -> None:
    """Nothing else could: an unknown one is refused, or settled where the settings say so."""
    async with run_function(HANDLER, EVENTS_UNKNOWN="ignore") as function:
        await function.ready()
        ignored = await bring(function, {"X-Topic": "unheard.of"})
        long = await bring(function, {"X-Topic": "t" * 300})
        plain = await call(function.port, "/", method="POST")
    assert [ignored.status, long.status, plain.status] == [204, 400, 404]


async def test_connectors_are_asked_for_the_secret(tmp_path: Path) -> None:
    """Whoever can call the function could say that it is one."""
    (tmp_path / "events").write_text("first-token")
    env = {"EVENTS_HTTP_PUBLIC": None, "EVENTS_HTTP_SECRET": "events", "FAAS_SECRETS_DIR": str(tmp_path)}
    async with run_function(SURFACE, **env) as function:
        await function.ready()
        forged = [await bring(function, headers, b"{}") for headers in (KAFKA, {**KAFKA, "X-Topic": "all", **CE})]
        shown = await bring(function, {**KAFKA, "Authorization": "Bearer first-token"}, b"{}")
        output = function.output()
    assert [answer.status for answer in forged] == [401, 401]
    assert (shown.status, output.count("fulfilled")) == (204, 1)


async def test_trace_of_the_message_goes_on() -> None:
    """The connector hands ``traceparent`` on as ``X-Kafka-Traceparent``; the span tells the place on Kafka."""
    with otlp_sink() as sink:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        async with run_function(SURFACE, **env) as function:
            await function.ready()
            assert (await bring(function, {**KAFKA, "X-Kafka-Traceparent": TRACEPARENT}, b"{}")).status == 204
            spans = sink.wait_for(lambda spans: any(span.name == "process orders" for span in spans))
    [server] = [span for span in spans if span.kind == "SERVER"]
    [process] = [span for span in spans if span.name == "process orders"]
    assert (server.trace_id, server.parent_id) == tuple(TRACEPARENT.split("-")[1:3])
    assert (process.trace_id, process.parent_id) == (server.trace_id, server.span_id)
    told = ("messaging.system", "messaging.kafka.offset", "messaging.destination.partition.id", "messaging.message.id")
    assert [process.attributes[name] for name in told] == ["kafka", 1042, "3", "orders/3/1042"]

"""Events from one function to another over HTTP: signed, in one trace, refused where forged, and by the gateway."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio.to_thread
import pytest

from tests.child import Process
from tests.local_up import make_project, up
from tests.otlp_sink import OtlpSink, Span, otlp_sink
from tests.processes import free_port, run_function
from tests.wire import Answer, call

pytestmark = pytest.mark.anyio

SENDER = """
from faasbase import Event, on_event
from faasbase.events import publish
from pydantic import BaseModel


class Order(BaseModel):
    id: int
    kind: str = "order.created"


async def handle(order: Order) -> str:
    return await publish(order.kind, order, key=f"o-{order.id}", subject="gr\u00fc\u00df", extensions={"region": "50%"})


@on_event("order.placed")
async def placed(event: Event[Order]) -> None:
    await publish("order.created", event.data)
"""
RECEIVER = """
from faasbase import Event, Reject, Retry, on_event
from pydantic import BaseModel

busy = 2


class Order(BaseModel):
    id: int


@on_event("order.created")
async def fulfil(event: Event[Order]) -> None:
    print("fulfilled", event.id, event.source, event.subject, event.extensions, event.data.id, flush=True)


@on_event("order.busy")
async def is_busy(event: Event[Order]) -> None:
    global busy
    busy -= 1
    if busy:
        raise Retry("later", after_seconds=0.1)
    print("no longer busy", event.id)


@on_event("order.never")
async def never(event: Event[Order]) -> None:
    raise Reject("such orders are not taken")
"""


@pytest.fixture(scope="module")
def sink() -> Iterator[OtlpSink]:
    """Receive the spans of both functions."""
    with otlp_sink() as sink:
        yield sink


@pytest.fixture(scope="module")
async def functions(sink: OtlpSink, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Process, Process]]:
    """Run a function that publishes, and the one that takes only what is signed."""
    secrets = tmp_path_factory.mktemp("secrets")
    (secrets / "events").write_text("whsec_c2VjcmV0LWNhbmFyeQ==")
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    both = {**traced, "FAAS_SECRETS_DIR": str(secrets)}
    guarded = {"EVENTS_HTTP_PUBLIC": None, "EVENTS_HTTP_SECRET": "events", "OPENFAAS_NAME": "receiver"}
    async with run_function(RECEIVER, **both, **guarded) as receiver:
        target = {"PUBLISH_URL": receiver.url, "PUBLISH_SECRET": "events", "PUBLISH_TIMEOUT": "4s"}
        async with run_function(SENDER, **both, **target, OPENFAAS_NAME="sender") as sender:
            await sender.ready()
            await receiver.ready()
            yield sender, receiver


async def order(sender: Process, **order: object) -> Answer:
    """Order by a call, with a trace of the caller's own."""
    headers = {"Content-Type": "application/json", "traceparent": f"00-{order['id']:032x}-00f067aa0ba902b7-01"}
    return await call(sender.port, "/", method="POST", headers=headers, body=json.dumps(order).encode())


async def test_signed_event_is_handled_by_the_other_function(functions: tuple[Process, Process]) -> None:
    """As it was published, its source being the function that has."""
    sender, receiver = functions
    answer = await order(sender, id=1)
    extensions = {"region": "50%", "partitionkey": "o-1"}
    await receiver.log_line(f"fulfilled {answer.json()} /function/sender gr\u00fc\u00df {extensions} 1")


async def test_forged_event_is_refused(functions: tuple[Process, Process]) -> None:
    """Without the signature it is anybody's."""
    _, receiver = functions
    headers = {"ce-specversion": "1.0", "ce-id": "forged", "ce-source": "/s", "ce-type": "order.created"}
    assert (await call(receiver.port, "/", method="POST", headers=headers, body=b'{"id": 9}')).status == 401
    assert "fulfilled forged" not in receiver.output()


async def test_trace_runs_from_the_caller_to_the_handler(functions: tuple[Process, Process], sink: OtlpSink) -> None:
    """Call, send, the other's call, process: each below the one before."""
    sender, _ = functions
    assert (await order(sender, id=2)).status == 200

    def mine(spans: list[Span]) -> dict[str, Span]:
        named = {"POST /": "call", "send": "send", "process": "process"}
        found = {}
        for span in spans:
            if span.trace_id == f"{2:032x}":
                kind = next((short for name, short in named.items() if span.name.startswith(name)), span.name)
                found[f"{kind} {span.resource['service.name']}"] = span
        return found

    wanted = {"call sender", "send sender", "process receiver"}
    spans = mine(await anyio.to_thread.run_sync(sink.wait_for, lambda spans: wanted <= mine(spans).keys()))
    sending, processing = spans["send sender"], spans["process receiver"]
    [taking] = [s for s in spans.values() if s.kind == "SERVER" and s.resource["service.name"] == "receiver"]
    assert sending.parent_id == spans["call sender"].span_id
    assert (taking.parent_id, processing.parent_id) == (sending.span_id, taking.span_id)
    assert (sending.kind, sending.attributes["cloudevents.event_type"]) == ("PRODUCER", "order.created")
    assert not any("canary" in text or "c2VjcmV0" in text for text in sink.raw)


async def test_event_that_is_to_come_again_does(functions: tuple[Process, Process]) -> None:
    """The caller waits, and has the id once it is settled."""
    sender, receiver = functions
    answer = await order(sender, id=3, kind="order.busy")
    assert answer.status == 200
    await receiver.log_line(f"no longer busy {answer.json()}")


async def test_event_that_is_refused_fails_its_publisher(functions: tuple[Process, Process]) -> None:
    """503: whoever has called may try again, and is told nothing of where events go."""
    sender, receiver = functions
    answer = await order(sender, id=4, kind="order.never")
    assert (answer.status, answer.json()["detail"]) == (503, "an event cannot be sent now")
    assert str(receiver.port) not in answer.text


async def test_repeat_of_an_event_publishes_the_same_one(functions: tuple[Process, Process]) -> None:
    """Its id is derived from the event that is handled, so that the other function can tell."""
    sender, receiver = functions
    event = {"specversion": "1.0", "source": "/till", "type": "order.placed", "data": {"id": 5}}
    headers = {"Content-Type": "application/cloudevents+json"}
    for event_id in ("p-1", "p-1", "p-2"):
        body = json.dumps({**event, "id": event_id}).encode()
        # Within one second the copy of a signed message is refused, and the event has to come again.
        for _ in range(20):
            answer = await call(sender.port, "/", method="POST", headers=headers, body=body)
            if answer.status == 204:
                break
            await anyio.sleep(0.2)
    published = " /function/sender None {} 5"
    await receiver.log_line(published)
    ids = [line.split()[1] for line in receiver.lines() if line.endswith(published)]
    assert (len(ids), ids[0] == ids[1], ids[1] == ids[2]) == (3, True, False)


async def test_secret_that_is_missing_stops_the_start() -> None:
    """It would publish what nobody takes."""
    env = {"PUBLISH_URL": "http://127.0.0.1:1/", "PUBLISH_SECRET": "events"}
    async with run_function(SENDER, **env).unwaited() as function:
        assert await function.exited() == 1
        assert "which setting PUBLISH_SECRET names, cannot be read" in function.output()


async def test_event_travels_by_the_gateways_queue(tmp_path: Path) -> None:
    """``/async-function/<name>`` of the embedded OpenFaaS: taken at once, handled when its turn comes."""
    port = free_port()
    more = f"environment:\n  PUBLISH_URL: http://127.0.0.1:{port}/async-function/receiver"
    project = make_project(tmp_path, {"sender": SENDER, "receiver": RECEIVER}, more=more)
    with up(project, "--port", str(port)) as local:
        body = b'{"id": 6}'
        headers = {"Content-Type": "application/json"}
        answer = await call(port, "/function/sender", method="POST", headers=headers, body=body)
        assert answer.status == 200
        await local.says(f"fulfilled {answer.json()} /function/sender gr\u00fc\u00df")

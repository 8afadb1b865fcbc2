"""Dead letters of pushed events: kept at ``DEADLETTER_URL`` before the pusher is told to give up."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import anyio
import pytest

from deploy.brokers.kafka import KafkaServer
from faasbase.backends import backend_of
from faasbase.events.http.dead_letters import KEEPERS
from faasbase.events.publishing import PUBLISHERS
from faasbase.events.sources import SOURCES
from tests.child import Process
from tests.processes import free_port, run_function
from tests.servers_kafka import new_name
from tests.staging import BASE
from tests.wire import Answer, call

pytestmark = pytest.mark.anyio

HANDLER = """
from faasbase import Event, Reject, Retry, on_event


@on_event("order.created")
async def fulfil(event: Event[dict[str, int]]) -> None:
    if event.data.get("id") == 13:
        raise Reject("no such luck: gr\u00fc\u00df")
    if event.data.get("id") == 14:
        raise Retry("later")
"""
KEEPER = """
import json

from fastapi import Request


async def handle(request: Request) -> None:
    body = (await request.body()).decode()
    print("LETTER " + json.dumps([dict(request.headers), body], sort_keys=True), flush=True)
"""
STRUCTURED = {"Content-Type": "application/cloudevents+json"}


@pytest.fixture(scope="module")
async def keeper() -> AsyncIterator[Process]:
    """Run a function that keeps letters, as a plain call's handler."""
    async with run_function(KEEPER, OPENFAAS_NAME="keeper") as process:
        await process.ready()
        yield process


@pytest.fixture(scope="module")
async def function(keeper: Process) -> AsyncIterator[Process]:
    """Run a function whose letters go there."""
    async with run_function(HANDLER, DEADLETTER_URL=f"http://shop:canary-word@127.0.0.1:{keeper.port}/in") as process:
        await process.ready()
        yield process


def order(event_id: str, **data: object) -> dict[str, Any]:
    """Return an event of an order."""
    return {"specversion": "1.0", "id": event_id, "source": "/shop", "type": "order.created", "data": data}


async def push(function: Process, body: object, headers: dict[str, str]) -> Answer:
    """Push *body* with *headers*."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await call(function.port, "/", method="POST", headers=headers, body=content)


async def letter(keeper: Process, marker: str) -> tuple[dict[str, str], str]:
    """Return headers and body of the letter that *marker* stands in, of which there is one."""
    await keeper.log_line(marker)
    [line] = [line for line in keeper.lines() if line.startswith("LETTER ") and marker in line]
    headers, body = json.loads(line.removeprefix("LETTER "))
    return headers, body


async def test_letter_is_the_event_and_why_it_was_given_up(function: Process, keeper: Process) -> None:
    """With its own headers; credentials of the call are not the event's."""
    headers = {f"ce-{name}": value for name, value in order("order-e1").items() if name != "data"}
    secret = {"Authorization": "Bearer canary-token", "Cookie": "session=canary"}
    answer = await push(function, {"id": 13}, {**headers, **secret, "Content-Type": "application/json; v=1"})
    assert (answer.status, answer.json()["detail"]) == (422, "no such luck: gr\u00fc\u00df")
    told, body = await letter(keeper, "order-e1")
    assert (body, told["content-type"], told["ce-type"]) == ('{"id": 13}', "application/json; v=1", "order.created")
    assert told["deadletter-reason"] == "no%20such%20luck:%20gr%C3%BC%C3%9F"
    names = ("position", "error", "function", "attempts", "system", "redrives")
    assert [told[f"deadletter-{name}"] for name in names] == ["/shop#order-e1", "Reject", "probe", "1", "http", "0"]
    assert told.pop("authorization").startswith("Basic ")
    assert "canary" not in json.dumps(told)


@pytest.mark.parametrize(
    ("content", "headers", "status", "error"),
    [
        (json.dumps(order("order-e2", id="x")).encode(), STRUCTURED, 422, "ValidationError"),
        (json.dumps({**order("order-e3"), "type": "unheard.of"}).encode(), STRUCTURED, 422, "UnknownType"),
        (b'{ "order-e4"', STRUCTURED, 400, "MalformedError"),
        (b'"order-e5', {"X-Topic": "order.created", "Content-Type": "text/plain"}, 400, "MalformedError"),
    ],
)
async def test_whatever_is_given_up_leaves_a_letter(
    function: Process, keeper: Process, content: bytes, headers: dict[str, str], status: int, error: str
) -> None:
    """Byte by byte as it came."""
    assert (await push(function, content, headers)).status == status
    told, kept = await letter(keeper, re.findall(r"order-e\d", content.decode())[0])
    assert (kept.encode(), told["deadletter-error"]) == (content, error)


async def test_letter_of_a_message_from_kafka_goes_back_there(function: Process, keeper: Process) -> None:
    """Topic, place, key and the message's own headers are in it."""
    place = {"X-Topic": "order.created", "X-Kafka-Partition": "1", "X-Kafka-Offset": "77", "X-Kafka-Key": "k-1"}
    assert (await push(function, b"[77]", {**place, "X-Kafka-Region": "eu", "X-Call-Id": "c"})).status == 422
    told, body = await letter(keeper, "order.created/1/77")
    names = ("destination", "position", "key")
    assert [told[f"deadletter-{name}"] for name in names] == ["order.created", "order.created/1/77", b"k-1".hex()]
    assert (body, told["region"]) == ("[77]", "eu")


async def test_each_event_of_a_batch_leaves_its_own_letter(function: Process, keeper: Process) -> None:
    """As a structured event; what is settled, or comes again, leaves none."""
    events = [order("order-f0", id=1), order("order-f1", id=13), order("order-f2", id=14)]
    answer = await push(function, events, {"Content-Type": "application/cloudevents-batch+json"})
    assert [(one["id"], one["status"]) for one in answer.json()["failures"]] == [("order-f1", 422), ("order-f2", 503)]
    told, body = await letter(keeper, "order-f1")
    assert (told["content-type"], json.loads(body)) == ("application/cloudevents+json", events[1])
    assert not [line for line in keeper.lines() if "order-f0" in line or "order-f2" in line]


async def test_same_event_has_the_same_letter(function: Process, keeper: Process) -> None:
    """Whoever keeps letters can let repeats replace each other."""
    for _ in range(2):
        assert (await push(function, order("order-g1", id=13), STRUCTURED)).status == 422
    await keeper.log_line("order-g1")
    letters = [json.loads(line[7:])[0] for line in keeper.lines() if line.startswith("LETTER ") and "order-g1" in line]
    assert len({told["deadletter-id"] for told in letters}) == 1


async def test_letters_are_counted(function: Process) -> None:
    """Under one name for all that is pushed: topics are the pusher's words."""
    assert (await push(function, order("order-h1", id=13), STRUCTURED)).status == 422
    lines = (await call(function.metrics_port, "/metrics")).text.splitlines()
    counted = [line for line in lines if line.startswith("faas_dead_letters_total") and 'error="Reject"' in line]
    assert len(counted) == 1
    assert 'destination="http"' in counted[0]


async def test_event_whose_letter_cannot_be_kept_comes_again() -> None:
    """503: better twice than never."""
    env = {"DEADLETTER_URL": f"http://127.0.0.1:{free_port()}/", "PUBLISH_TIMEOUT": "300ms"}
    async with run_function(HANDLER, **env) as function:
        await function.ready()
        answer = await push(function, order("order-e1", id=13), STRUCTURED)
        await function.log_line("dead letter of /shop#order-e1 cannot be kept")
    assert (answer.status, bool(answer.header("retry-after"))) == (503, True)


@pytest.mark.parametrize("url", ["ftp://canary/", "http://keeper:canary/", "canary"])
async def test_place_that_cannot_be_used_stops_the_start(url: str) -> None:
    """By the setting's name."""
    async with run_function(HANDLER, DEADLETTER_URL=url).unwaited() as function:
        assert await function.exited() == 1
        assert "start failed: setting DEADLETTER_URL cannot be used" in function.output()
        assert "canary" not in function.output()


@pytest.mark.parametrize(
    ("table", "setting"), [(KEEPERS, "DEADLETTER_URL"), (PUBLISHERS, "PUBLISH_URL"), (SOURCES, "EVENTS_URL")]
)
def test_every_scheme_that_is_taken_leads_somewhere(table: Mapping[str, str], setting: str) -> None:
    """Those of dead letters are all that events are sent to: whoever has a broker keeps them there."""
    for scheme in table:
        assert callable(backend_of(setting, f"{scheme}://place", table))
    assert {"kafka", "memory", "nats"} <= table.keys()


@pytest.fixture(params=["kafka", "nats"])
async def broker(request: pytest.FixtureRequest) -> str:
    """Give the URL of a new place for letters."""
    if request.param == "nats":
        return f"{request.getfixturevalue('nats_server').url}/{new_name('pushed')}"
    server: KafkaServer = request.getfixturevalue("kafka")
    name = new_name("letters")
    await server.create_topic(name, 1, {})
    return f"{server.url}/{name}"


async def test_letter_may_be_kept_by_a_broker(broker: str) -> None:
    """``DEADLETTER_URL`` takes those that events are fetched from as well; the command line finds it there."""
    url = broker
    async with run_function(HANDLER, DEADLETTER_URL=url) as function:
        await function.ready()
        assert (await push(function, order("order-n1", id=13), STRUCTURED)).status == 422
        command = [sys.executable, "-m", "faasbase.deadletters", "list", "--url", url, "--json", "--content"]
        with anyio.fail_after(20):
            listed = await anyio.run_process(command, env=os.environ | {"PYTHONPATH": str(BASE)})
    [kept] = [json.loads(line) for line in listed.stdout.splitlines()]
    assert (kept["position"], kept["error"], kept["system"]) == ("/shop#order-n1", "Reject", "http")
    assert json.loads(kept["content"]) == order("order-n1", id=13)

"""Dead letters in NATS JetStream: in a stream that keeps them, whatever their size, and each time an event dies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest
from aiokafka import AIOKafkaConsumer
from nats.js.client import JetStreamContext

from deploy.brokers.kafka import KafkaServer
from deploy.brokers.nats import NatsServer
from tests.processes import run_function
from tests.servers_kafka import MakeTopic, new_name
from tests.wire import call

pytestmark = pytest.mark.anyio

HANDLER = """
from faasbase import Event, Reject, on_event


@on_event("order.created")
async def fulfil(event: Event[dict]) -> None:
    if "name" in event.data:
        raise Reject(f"bad name {event.data['name']}")
    print("fulfilled", event.id, flush=True)
"""
ATTRIBUTES = {"ce-id": "1", "ce-source": "/t", "ce-type": "order.created", "ce-specversion": "1.0"}
HEADER_BLOCK = len("NATS/1.0\r\n\r\n") + sum(len(f"{name}: {value}\r\n") for name, value in ATTRIBUTES.items())


@pytest.fixture
async def stream(nats_server: NatsServer) -> AsyncIterator[tuple[JetStreamContext, str]]:
    """Give a stream of the test's own, whose subject is its name in small letters."""
    name = new_name("letters").upper()
    async with await nats.connect(nats_server.url) as client:
        await client.jetstream().add_stream(name=name, subjects=[name.lower()])
        yield client.jetstream(), name


async def letters(asking: JetStreamContext, name: str, count: int) -> list[tuple[dict[str, str], bytes]]:
    """Return headers and content of what is in the stream *name*, once there are *count* messages."""
    for _ in range(250):
        state = (await asking.stream_info(name)).state
        if state.messages >= count:
            break
        await asyncio.sleep(0.02)
    kept = [await asking.get_msg(name, seq) for seq in range(state.first_seq, state.last_seq + 1)]
    return [(dict(message.headers or {}), message.data or b"") for message in kept]


async def test_messages_as_large_as_can_be_are_given_up(
    nats_server: NatsServer, stream: tuple[JetStreamContext, str]
) -> None:
    """With the letter's own headers they are too large: they are kept without their content, and no lane is blocked."""
    asking, name = stream
    size = 1024 * 1024 - HEADER_BLOCK
    url = f"{nats_server.url}/{name}?durable={name}"
    async with run_function(HANDLER, EVENTS_URL=url, EVENTS_LANES="2") as function:
        await function.ready()
        for _ in range(3):
            await asking.publish(name.lower(), b"x" * size, headers=ATTRIBUTES)
        await asking.publish(name.lower(), b"{}", headers={**ATTRIBUTES, "ce-id": "good"})
        await function.log_line("fulfilled good")
        kept = await letters(asking, f"{name}-dead-letters", 3)
    assert [content for _, content in kept] == [b""] * 3
    assert {headers["deadletter-truncated"] for headers, _ in kept} == {str(size)}
    assert {headers["deadletter-position"] for headers, _ in kept} == {f"{name}/{number}" for number in (1, 2, 3)}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"retention": "interest"}, "by limits"),
        ({"retention": "workqueue"}, "by limits"),
        ({"no_ack": True}, "no_ack"),
        ({"max_msgs_per_subject": 1, "discard": "new", "discard_new_per_subject": True}, "discard_new_per_subject"),
        ({"subjects": ["elsewhere.>"]}, "must take the subjects"),
    ],
)
async def test_stream_that_would_lose_letters_stops_the_start(
    nats_server: NatsServer, stream: tuple[JetStreamContext, str], config: dict[str, Any], reason: str
) -> None:
    """Somebody else has made it, for something else."""
    asking, name = stream
    subjects = [f"dead-letters.{name}.>"]
    await asking.add_stream(**{"name": f"{name}-dead-letters", "subjects": subjects, "max_msgs": 9, **config})
    env = {"EVENTS_URL": f"{nats_server.url}/{name}?durable={name}", "EVENTS_START_TIMEOUT": "5s"}
    async with run_function(HANDLER, **env).unwaited() as function:
        assert await function.exited() == 1
        line = next(line["message"] for line in function.logs() if "start failed" in line["message"])
    await asking.delete_stream(f"{name}-dead-letters")
    assert f"the stream {name}-dead-letters, for dead letters, does not fit" in line
    assert reason in line


async def test_event_that_dies_again_has_a_letter_again(nats_server: NatsServer) -> None:
    """Though the first one has been taken away in the time for which the server remembers its id."""
    name = new_name("again").upper()
    async with (
        await nats.connect(nats_server.url) as client,
        run_function(HANDLER, DEADLETTER_URL=f"{nats_server.url}/{name}") as function,
    ):
        await function.ready()
        for _ in range(2):
            await client.jetstream().purge_stream(name)
            answer = await call(function.port, "/", method="POST", headers=ATTRIBUTES, body=b'{"name": "x"}')
            assert (answer.status, len(await letters(client.jetstream(), name, 1))) == (422, 1)
            # Another one of the same event takes its place.
            await call(function.port, "/", method="POST", headers=ATTRIBUTES, body=b'{"name": "x"}')
            assert len(await letters(client.jetstream(), name, 1)) == 1


async def test_pushed_body_that_is_too_large_for_a_letter_is_given_up(nats_server: NatsServer) -> None:
    """422 and a letter without it; with 503 its sender would never stop."""
    name = new_name("pushed").upper()
    body = json.dumps({"name": "x" * (1024 * 1024)}).encode()
    async with (
        await nats.connect(nats_server.url) as client,
        run_function(HANDLER, DEADLETTER_URL=f"{nats_server.url}/{name}") as function,
    ):
        await function.ready()
        answer = await call(function.port, "/", method="POST", headers=ATTRIBUTES, body=body)
        [(headers, content)] = await letters(client.jetstream(), name, 1)
    assert (answer.status, headers["deadletter-truncated"], content) == (422, str(len(body)), b"")


async def test_half_a_character_in_a_reason_stops_nothing(
    nats_server: NatsServer, stream: tuple[JetStreamContext, str]
) -> None:
    """What JSON can say, and no text of UTF-8."""
    asking, name = stream
    event = {"id": "1", "source": "/t", "specversion": "1.0", "type": "order.created", "data": {"name": "\ud800"}}
    async with run_function(HANDLER, EVENTS_URL=f"{nats_server.url}/{name}?durable={name}") as function:
        await function.ready()
        structured = {"content-type": "application/cloudevents+json"}
        await asking.publish(name.lower(), json.dumps(event).encode(), headers=structured)
        await asking.publish(name.lower(), b"{}", headers={**ATTRIBUTES, "ce-id": "good"})
        await function.log_line("fulfilled good")
        kept = await letters(asking, f"{name}-dead-letters", 1)
    assert "\\ud800" in kept[0][0]["deadletter-reason"]


async def test_letters_may_go_to_another_broker(
    kafka: KafkaServer, make_topic: MakeTopic, nats_server: NatsServer, stream: tuple[JetStreamContext, str]
) -> None:
    """By ``DEADLETTER_URL``; what is fetched there is settled here once the other one has the letter."""
    asking, name = stream
    topic = await make_topic()
    env = {"EVENTS_URL": f"{nats_server.url}/{name}?durable={name}", "DEADLETTER_URL": f"{kafka.url}/{topic}"}
    async with run_function(HANDLER, **env) as function:
        await function.ready()
        await asking.publish(name.lower(), b'{"name": "x"}', headers=ATTRIBUTES)
        await function.log_line(f"{name}/1 is a dead letter")
    async with AIOKafkaConsumer(topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest") as reading:
        message = await asyncio.wait_for(reading.getone(), 5)
    assert message.value == b'{"name": "x"}'
    assert dict(message.headers)["deadletter-position"] == f"{name}/1".encode()

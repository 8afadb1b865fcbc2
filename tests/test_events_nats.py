"""Functions that fetch from NATS JetStream: what a process may do, what its end costs, what the server may do."""

from __future__ import annotations

import asyncio
import json
import signal
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.js.api import ConsumerInfo, SequenceInfo
from nats.js.client import JetStreamContext

from deploy.brokers.nats import NatsServer
from tests.child import Process
from tests.processes import run_function
from tests.wire import call

pytestmark = pytest.mark.anyio

HANDLER = """
import asyncio
import os
import time

from faasbase import Event, Reject, Retry, current_delivery, on_event


def told(what, event):
    # One write each, so that lines of several processes stay whole.
    os.write(1, f"{what} {event.data['n']} {current_delivery().attempt}\\n".encode())


@on_event("work")
async def work(event: Event[dict]) -> None:
    told("began", event)
    await asyncio.sleep(event.data.get("seconds", 0))
    told("ended", event)


@on_event("plain")
def plain(event: Event[dict]) -> None:
    time.sleep(event.data.get("seconds", 0))
    told("ended", event)


@on_event("later")
async def later(event: Event[dict]) -> None:
    told("tried", event)
    raise Retry("later", after_seconds=event.data["seconds"])


tries = 0


@on_event("elsewhere")
async def wait(event: Event[dict]) -> None:
    global tries
    tries += 1
    if tries < 15:
        told("busy", event)
        raise Retry("handled elsewhere", after_seconds=0.05, counts=False)
    told("ended", event)


@on_event("blocking")
async def block(event: Event[dict]) -> None:
    told("began", event)
    time.sleep(event.data["seconds"])
    told("ended", event)


@on_event("killer")
async def kill(event: Event[dict]) -> None:
    told("killed", event)
    os._exit(7)
"""


@dataclass
class Place:
    """A stream of the test's own, and who looks at it."""

    server: NatsServer
    asking: JetStreamContext
    stream: str
    subject: str

    @property
    def url(self) -> str:
        return f"{self.server.url}/{self.stream}?durable={self.stream}"

    async def send(self, kind: str, numbers: range, **data: Any) -> None:
        """Publish one event of *kind* for each of *numbers*."""
        for number in numbers:
            headers = {"ce-id": f"{number}", "ce-source": "/test", "ce-type": kind, "ce-specversion": "1.0"}
            await self.asking.publish(self.subject, json.dumps({"n": number, **data}).encode(), headers=headers)

    async def info(self) -> ConsumerInfo:
        """Return how the consumer is."""
        info: ConsumerInfo = await self.asking.consumer_info(self.stream, self.stream)
        return info

    async def settled(self) -> None:
        """Wait until nothing is left to handle."""
        for _ in range(500):
            info = await self.info()
            if not info.num_pending and not info.num_ack_pending:
                return
            await asyncio.sleep(0.02)
        raise AssertionError(f"still there: {info.num_pending} and {info.num_ack_pending}")


@asynccontextmanager
async def new_place(server: NatsServer, **consumer: Any) -> AsyncIterator[Place]:
    """Give a new stream, and with *consumer* a consumer that is there before the function is."""
    name = uuid.uuid4().hex[:8]
    async with await nats.connect(server.url) as client:
        place = Place(server, client.jetstream(), f"S{name}", f"work.{name}")
        await place.asking.add_stream(name=place.stream, subjects=[place.subject])
        if consumer:
            settings = {"ack_policy": "explicit", "max_deliver": -1, **consumer}
            await place.asking.add_consumer(place.stream, name=place.stream, durable_name=place.stream, **settings)
        yield place


@pytest.fixture
async def place(nats_server: NatsServer) -> AsyncIterator[Place]:
    """Give a stream on the server of all tests."""
    async with new_place(nats_server) as new:
        yield new


def told(function: Process, what: str) -> Counter[int]:
    """Return how often the handler has said *what* of each number."""
    return Counter(int(line.split()[1]) for line in function.lines() if line.startswith(f"{what} "))


async def test_killed_process_loses_nothing(nats_server: NatsServer) -> None:
    """What it had in flight comes again once the server has waited for it; what was settled does not."""
    async with new_place(nats_server, ack_wait=1.0) as place:
        async with run_function(HANDLER, EVENTS_URL=place.url) as first:
            await first.ready()
            await place.send("work", range(20))
            await place.settled()
            await place.send("work", range(20, 60), seconds=0.3)
            await first.log_line("ended 25")
            first.send_signal(signal.SIGKILL)
            await first.exited()
            before = told(first, "ended")
        async with run_function(HANDLER, EVENTS_URL=place.url) as second:
            await place.settled()
            after = told(second, "ended")
    assert set(before) | set(after) == set(range(60))
    assert not set(range(20)) & set(after)
    assert sum((before + after).values()) <= 60 + 16


async def test_stopped_process_repeats_nothing(place: Place) -> None:
    """In flight ends and is settled; what has not begun goes to the next one at once."""
    async with run_function(HANDLER, EVENTS_URL=place.url) as first:
        await first.ready()
        await place.send("work", range(40), seconds=0.1)
        await first.log_line("ended 9")
        assert await asyncio.to_thread(first.stop) == 0
        before = told(first, "ended")
        assert told(first, "began") == before
    async with run_function(HANDLER, EVENTS_URL=place.url) as second:
        await place.settled()
        after = told(second, "ended")
    assert before + after == Counter(range(40))
    assert len(before) < 40


async def test_two_replicas_share_the_work(place: Place) -> None:
    """Neither takes more than it can handle, so that nothing waits for one while the other is idle."""
    async with (
        run_function(HANDLER, EVENTS_URL=place.url, EVENTS_LANES="2") as first,
        run_function(HANDLER, EVENTS_URL=place.url, EVENTS_LANES="2") as second,
    ):
        await asyncio.gather(first.ready(), second.ready())
        await place.send("work", range(20), seconds=0.1)
        await place.settled()
        shares = told(first, "ended"), told(second, "ended")
    assert shares[0] + shares[1] == Counter(range(20))
    assert min(len(share) for share in shares) >= 6


@pytest.mark.parametrize("kind", ["work", "plain"])
async def test_long_handler_is_not_repeated(nats_server: NatsServer, kind: str) -> None:
    """The server is told that it goes on, before it would deliver the message again."""
    async with (
        new_place(nats_server, ack_wait=1.0) as place,
        run_function(HANDLER, EVENTS_URL=place.url) as function,
    ):
        await function.ready()
        await place.send(kind, range(1), seconds=3.0)
        await function.log_line("ended 0 1")
        await place.settled()
        delivered = (await place.info()).delivered
        assert delivered is not None
        assert delivered.consumer_seq == 1


async def test_function_goes_on_after_its_server(tmp_path: Path) -> None:
    """A restart of the server costs a moment: nothing is lost, nothing repeated that had ended."""
    with NatsServer(tmp_path / "nats") as server:
        async with new_place(server) as place, run_function(HANDLER, EVENTS_URL=place.url) as function:
            await function.ready()
            await place.send("work", range(30), seconds=0.2)
            await function.log_line("ended 9")
            await asyncio.to_thread(server.restart)
            await function.log_line("connected to NATS again")
            await function.log_line("ended 29", timeout_seconds=10)
            async with await nats.connect(server.url) as client:
                place.asking = client.jetstream()
                await place.settled()
                await place.send("work", range(30, 31))
                await function.log_line("ended 30")
            assert told(function, "ended") == Counter(range(31))


async def test_message_that_ends_the_process_is_a_dead_letter(nats_server: NatsServer) -> None:
    """It is found however often that takes, and the others are handled, though their attempts are over by then."""
    async with new_place(nats_server, ack_wait=0.3) as place:
        await place.send("killer", range(1))
        await place.send("work", range(1, 4), seconds=0.05)
        await give_back(place, 4, times=1)
        ended: Counter[int] = Counter()
        for _ in range(11):
            async with run_function(HANDLER, EVENTS_URL=place.url, EVENTS_MAX_ATTEMPTS="1") as function:
                found = await first_of(function, "is a dead letter", exits=True)
                ended += told(function, "ended")
            if found:
                break
        assert found
        async with run_function(HANDLER, EVENTS_URL=place.url, EVENTS_MAX_ATTEMPTS="1") as function:
            await place.settled()
            ended += told(function, "ended")
        letters = await place.asking.stream_info(f"{place.stream}-dead-letters")
    assert set(ended) == {1, 2, 3}
    assert letters.state.messages == 1


async def give_back(place: Place, count: int, times: int) -> None:
    """Take *count* messages and give them back, as processes do that end before they have begun with them."""
    pulling = await place.asking.pull_subscribe_bind(place.stream, stream=place.stream)
    for _ in range(times):
        for message in await pulling.fetch(count):
            await message.nak()
    await pulling.unsubscribe()


async def first_of(function: Process, text: str, *, exits: bool) -> bool:
    """Wait for the process to write *text*, True, or to end."""
    for _ in range(500):
        if any(text in line for line in function.lines()):
            return True
        if exits and function.status is not None:
            return False
        await asyncio.sleep(0.02)
    raise AssertionError(f"neither\n{function.tail()}")


async def test_no_more_is_out_than_the_bound(place: Place) -> None:
    """Retries that wait count too: `EVENTS_MAX_UNCOMMITTED` is what a crash can cost at most."""
    env = {"EVENTS_LANES": "3", "EVENTS_MAX_UNCOMMITTED": "5", "EVENTS_COMMIT_INTERVAL": "100ms"}
    async with run_function(HANDLER, EVENTS_URL=place.url, **env) as function:
        await function.ready()
        await place.send("later", range(12), seconds=30)
        await function.log_line("tried 4")
        await asyncio.sleep(0.5)
        info = await place.info()
        metrics = (await call(function.metrics_port, "/metrics")).text
    assert (len(told(function, "tried")), info.num_ack_pending, info.num_pending) == (5, 5, 7)
    labels = f'destination="{place.stream}",partition=""'
    assert f"faas_event_lag_messages{{{labels}}} 12.0" in metrics
    assert f"faas_event_lag_seconds{{{labels}}} " in metrics


async def test_consumer_that_is_deleted_ends_the_process(place: Place) -> None:
    """It cannot go on, and says why; whoever runs it starts a new one."""
    async with run_function(HANDLER, EVENTS_URL=place.url) as function:
        await function.ready()
        await place.asking.delete_consumer(place.stream, place.stream)
        assert await function.exited() == 1
        assert "is gone" in function.output()


async def test_consumer_that_refuses_what_is_asked_ends_the_process(place: Place) -> None:
    """By its own bounds it never gives anything; what the server says is what the process ends with."""
    bounds = {"max_batch": 2, "max_expires": 1_000_000_000, "max_ack_pending": 1000}
    kind = {"name": place.stream, "durable_name": place.stream, "ack_policy": "explicit", "max_deliver": -1}
    request = json.dumps({"stream_name": place.stream, "config": {**kind, **bounds}}).encode()
    async with await nats.connect(place.server.url) as client:
        await client.request(f"$JS.API.CONSUMER.CREATE.{place.stream}.{place.stream}", request)
    async with run_function(HANDLER, EVENTS_URL=place.url) as function:
        assert await function.exited() == 1
        assert f"the consumer {place.stream} refuses to be asked for events: 409 Exceeded" in function.output()


async def test_try_that_does_not_count_is_no_delivery(place: Place) -> None:
    """It is handled elsewhere: however long that takes, it is not given up here."""
    async with run_function(HANDLER, EVENTS_URL=place.url, EVENTS_MAX_ATTEMPTS="1") as function:
        await function.ready()
        await place.send("elsewhere", range(1))
        await function.log_line("ended 0 1")
        await place.settled()
        assert told(function, "busy") == Counter({0: 14})
        assert ((await place.info()).delivered or SequenceInfo(0, 0)).consumer_seq == 1


async def test_handler_that_blocks_the_loop_is_not_repeated(nats_server: NatsServer) -> None:
    """The server is told of nothing meanwhile and sends the message again: it was settled before that is read."""
    async with (
        new_place(nats_server, ack_wait=0.5) as place,
        run_function(HANDLER, EVENTS_URL=place.url) as function,
    ):
        await function.ready()
        await place.send("blocking", range(1), seconds=1.5)
        await function.log_line("ended 0 1")
        await place.settled()
        await asyncio.sleep(0.5)
        assert told(function, "began") == Counter([0])
        assert ((await place.info()).delivered or SequenceInfo(0, 0)).consumer_seq > 1


async def test_nothing_that_is_sent_stops_a_consumer(place: Place) -> None:
    """Headers and subjects of any bytes: dead letters, or plain messages, and the next event is handled."""
    blocks = [
        *(b"X", b"NATS/1.0", b"NATS/1.0\r\n", b"NATS/1.0 \xff\xfe\xfd\r\n\r\n", b"NATS/1.0 404 No Messages\r\n\r\n"),
        b"NATS/1.0 409 Consumer Deleted\r\nDescription: Consumer Deleted\r\n\r\n",
        b"NATS/1.0\r\nStatus: 100\r\n\r\n",
        b"NATS/1.0\r\nce-id: \xff\r\nce-id: 2\r\nce\xff: 3\r\n: 4\r\na b: 5\r\n\r\n",
        b"NATS/1.0\r\ncontent-type: application/cloudevents+json\r\n\r\n",
    ]
    async with run_function(HANDLER, EVENTS_URL=place.url) as function:
        await function.ready()
        for block in blocks:
            await send_raw(place.server, place.subject.encode(), block, b"{}")
        await place.send("work", range(1))
        await function.log_line("ended 0 1")
        await place.settled()
        letters = await place.asking.stream_info(f"{place.stream}-dead-letters")
        assert "Traceback" not in function.output()
    assert letters.state.messages == len(blocks)


async def send_raw(server: NatsServer, subject: bytes, headers: bytes, content: bytes) -> None:
    """Publish a message with a block of headers that no library would make."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await reader.readline()
    writer.write(b'CONNECT {"verbose": false, "headers": true}\r\n')
    writer.write(b"HPUB %s %d %d\r\n" % (subject, len(headers), len(headers) + len(content)))
    writer.write(headers + content + b"\r\nPING\r\n")
    assert await asyncio.wait_for(reader.readline(), 5) == b"PONG\r\n"
    writer.close()
    await writer.wait_closed()


async def test_subject_that_is_no_text_stops_nothing(nats_server: NatsServer) -> None:
    """The server takes any bytes in a subject."""
    name = uuid.uuid4().hex[:8]
    async with await nats.connect(nats_server.url) as client:
        place = Place(nats_server, client.jetstream(), f"S{name}", f"work.{name}.a")
        await place.asking.add_stream(name=place.stream, subjects=[f"work.{name}.>"])
        async with run_function(HANDLER, EVENTS_URL=place.url) as function:
            await function.ready()
            await send_raw(nats_server, f"work.{name}.".encode() + b"\xff", b"NATS/1.0\r\n\r\n", b"{}")
            await place.send("work", range(1))
            await function.log_line("ended 0 1")
            await place.settled()


def environment(place: Place, options: str = "", **env: str) -> Mapping[str, str]:
    """Return the environment of a function that fetches with *options* of the URL."""
    return {"EVENTS_URL": f"{place.url}{options}", "EVENTS_START_TIMEOUT": "5s", **env}


async def start_error(env: Mapping[str, str]) -> str:
    """Return the line that the start of a function ends with, which must fail."""
    async with run_function(HANDLER, **env).unwaited() as function:
        assert await function.exited() == 1
        return next(str(line["message"]) for line in function.logs() if "start failed" in line["message"])


async def test_missing_stream_stops_the_start(nats_server: NatsServer) -> None:
    """It is never made by asking for it."""
    line = await start_error({"EVENTS_URL": f"{nats_server.url}/NOSUCH"})
    assert "EVENTS_URL" in line
    assert "no stream NOSUCH" in line


@pytest.mark.parametrize(
    ("consumer", "options", "reason"),
    [
        ({"max_deliver": 3}, "", "its max deliver is 3"),
        ({"ack_policy": "all"}, "", "its ack policy is all"),
        ({"deliver_subject": "somewhere"}, "", "it pushes"),
        ({}, "&subject=work.*", "it takes everything"),
        ({"headers_only": True}, "", "headers only"),
        ({"inactive_threshold": 60.0}, "", "its position with it"),
    ],
)
async def test_consumer_of_another_kind_stops_the_start(
    nats_server: NatsServer, consumer: Mapping[str, Any], options: str, reason: str
) -> None:
    """One line says which consumer, and what is wrong with it."""
    async with new_place(nats_server, **{"ack_wait": 5.0, **consumer}) as place:
        line = await start_error(environment(place, options))
    assert f"consumer {place.stream} of the stream {place.stream}" in line
    assert reason in line


async def test_subject_that_no_stream_takes_stops_the_start(nats_server: NatsServer) -> None:
    """What is published would be lost."""
    line = await start_error({"PUBLISH_URL": f"{nats_server.url}/nowhere.at.all"})
    assert "PUBLISH_URL" in line
    assert "no stream" in line
    assert "nowhere.at.all" in line


async def test_nobody_there_stops_the_start_in_time() -> None:
    """Within `EVENTS_START_TIMEOUT`."""
    line = await start_error({"EVENTS_URL": "nats://127.0.0.1:1/S", "EVENTS_START_TIMEOUT": "1s"})
    assert "nobody there has answered within 1 s" in line

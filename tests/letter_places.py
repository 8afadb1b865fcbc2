"""Places of dead letters on real brokers, and the command that looks after them, as a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import nats
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from nats.js import JetStreamContext
from nats.js.api import StreamConfig

from deploy.brokers.kafka import KafkaServer
from deploy.brokers.nats import NatsServer
from faasbase.events.dead_letters import DeadLetter
from tests.processes import PASSED_ON
from tests.servers_kafka import new_name
from tests.staging import BASE

COMMAND = ("-m", "faasbase.deadletters")
COMMAND_SECONDS = 60.0
SENT_AT_ONCE = 100
Headers = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Done:
    """What a command has come to."""

    status: int
    lines: list[str]
    errors: str
    seconds: float

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    @property
    def ids(self) -> set[str]:
        return {document["id"] for document in self.documents}


@dataclass(frozen=True)
class Arrived:
    """A message at its destination."""

    content: bytes
    headers: dict[str, bytes]
    key: bytes | None = None


class Place(Protocol):
    """Somewhere to keep letters, and somewhere for them to go back to."""

    url: str
    destination: str
    elsewhere: str
    keyed: bool

    async def keep(self, *letters: DeadLetter) -> None: ...

    async def add_foreign(self, count: int) -> None:
        """Put messages that are no letters among the letters."""

    async def arrived(self, destination: str = "") -> list[Arrived]:
        """Return what is at *destination*."""


def a_letter(place: Place, number: int, **changes: Any) -> DeadLetter:
    """Return the letter of the message *number* at the place's destination."""
    letter = DeadLetter(
        id=f"{number:032x}",
        system="kafka" if place.keyed else "nats",
        destination=place.destination,
        position=f"{place.destination}/0/{number}",
        content=b"\x00\xffcontent-%d" % number,
        headers=(("ce_id", b"%d" % number), ("traceparent", b"00-abc")),
        key=b"key-%d" % number if place.keyed else None,
        attempts=3,
        reason="the shelf is empty",
        error="ShelfError",
        function="order-worker",
        died_at=time.time() - 60,
    )
    return replace(letter, **changes)


@asynccontextmanager
async def started(
    place: Place | None,
    *arguments: str,
    script: str = "",
    stdout: int = asyncio.subprocess.PIPE,
    stderr: int = asyncio.subprocess.PIPE,
    settings: Mapping[str, str] | None = None,
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Give the running command with *arguments*; *script* is Python that runs before it, in its process."""
    call = ("-c", f"{script}\nfrom faasbase.deadletters.__main__ import main\nmain()") if script else COMMAND
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *call,
        *arguments,
        env=command_environ({"DEADLETTER_URL": place.url} if place else settings or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def command(place: Place | None, *arguments: str, script: str = "", **settings: str) -> Done:
    """Run the command with *arguments* to its end, in the environment of a function with *settings*."""
    began = time.monotonic()
    async with (
        asyncio.timeout(COMMAND_SECONDS),
        started(place, *arguments, script=script, settings=settings) as process,
    ):
        output, errors = await process.communicate()
    assert process.returncode is not None
    return Done(process.returncode, output.decode().splitlines(), errors.decode(), time.monotonic() - began)


def command_environ(settings: Mapping[str, str]) -> dict[str, str]:
    """Return a function's environment with *settings*."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {**passed, "PYTHONPATH": str(BASE), "OPENFAAS_NAME": "order-worker", **settings}


class KafkaPlace:
    """A compacted topic of letters, and two topics that they may go to."""

    keyed = True

    def __init__(self, server: KafkaServer) -> None:
        self._server, self.topic = server, f"{new_name('worker')}.dead-letters"
        self.url = f"{server.url}/{self.topic}"
        self.destination, self.elsewhere = new_name("orders"), new_name("elsewhere")

    async def make(self) -> None:
        await self._server.create_topic(self.topic, 2, {"cleanup.policy": "compact"})
        await self._server.create_topic(self.destination, 3)
        await self._server.create_topic(self.elsewhere)

    async def keep(self, *letters: DeadLetter) -> None:
        await self.write(*((letter.id.encode(), letter.content, letter.all_headers()) for letter in letters))

    async def add_foreign(self, count: int) -> None:
        await self.write(*((b"%d" % number, b"foreign", []) for number in range(count)))

    async def write(self, *records: tuple[bytes | None, bytes | None, Headers]) -> None:
        """Append *records*, keys and contents and headers, to the letters."""
        producer = AIOKafkaProducer(bootstrap_servers=self._server.bootstrap, linger_ms=20)
        await producer.start()
        try:
            sent = [await producer.send(self.topic, value, key=key, headers=headers) for key, value, headers in records]
            await asyncio.gather(*sent)
        finally:
            await producer.stop()

    async def arrived(self, destination: str = "") -> list[Arrived]:
        return [
            Arrived(record.value or b"", dict(record.headers), record.key)
            for record in await self.records(destination or self.destination)
        ]

    async def records(self, topic: str) -> list[Any]:
        """Return all records of *topic*."""
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=self._server.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
            expected = sum((await consumer.end_offsets(partitions)).values())
            found: list[Any] = []
            async with asyncio.timeout(20):
                while len(found) < expected:
                    page = await consumer.getmany(timeout_ms=500)
                    found += [record for records in page.values() for record in records]
            return found
        finally:
            await consumer.stop()


class NatsPlace:
    """A stream of letters, and another with the subjects that they may go to."""

    keyed = False

    def __init__(self, server: NatsServer) -> None:
        self._server, self.stream = server, new_name("letters")
        self.url = f"{server.url}/{self.stream}"
        self._orders = new_name("orders")
        self.destination, self.elsewhere = f"{self._orders}.new", f"{self._orders}.elsewhere"

    async def make(self) -> None:
        async with self._streams() as streams:
            subjects = [f"dead-letters.{self.stream}.>"]
            letters = StreamConfig(name=self.stream, subjects=subjects, max_msgs_per_subject=1, allow_rollup_hdrs=True)
            await streams.add_stream(letters)
            await streams.add_stream(StreamConfig(name=self._orders, subjects=[f"{self._orders}.>"]))

    async def keep(self, *letters: DeadLetter) -> None:
        async with self._streams() as streams:
            for begin in range(0, len(letters), SENT_AT_ONCE):
                await asyncio.gather(*(self._keep(streams, letter) for letter in letters[begin:][:SENT_AT_ONCE]))

    async def _keep(self, streams: JetStreamContext, letter: DeadLetter) -> None:
        headers = {name: value.decode() for name, value in letter.all_headers()}
        await streams.publish(f"dead-letters.{self.stream}.{letter.id}", letter.content, headers=headers)

    async def add_foreign(self, count: int) -> None:
        async with self._streams() as streams:
            for number in range(count):
                await streams.publish(f"dead-letters.{self.stream}.foreign.{number}", b"foreign")

    async def arrived(self, destination: str = "") -> list[Arrived]:
        found = []
        async with self._streams() as streams:
            state = (await streams.stream_info(self._orders)).state
            for sequence in range(max(state.first_seq, 1), state.last_seq + 1):
                message = await streams.get_msg(self._orders, sequence, direct=False)
                if message.subject == (destination or self.destination):
                    headers = {name: value.encode() for name, value in (message.headers or {}).items()}
                    found.append(Arrived(message.data or b"", headers))
        return found

    def _streams(self) -> AbstractAsyncContextManager[JetStreamContext]:
        return streams_of(self._server)


@asynccontextmanager
async def streams_of(server: NatsServer) -> AsyncIterator[JetStreamContext]:
    """Give the streams of *server*."""
    client = await nats.connect(server.url)
    try:
        yield client.jetstream()
    finally:
        await client.close()

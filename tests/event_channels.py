"""One transport of events each, with a place of its own on a real broker, for suites that run on all of them."""

from __future__ import annotations

import asyncio
import socket
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from types import ModuleType
from typing import Any, Protocol

import nats
import uvicorn
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from deploy.brokers.kafka import KafkaServer
from deploy.brokers.nats import NatsServer
from faasbase.app import build_app, resources
from faasbase.events.dead_letters import DeadLetter, read_letter
from faasbase.events.memory_broker import memory_broker
from faasbase.events.publishing import opened_publisher
from faasbase.lifecycle import Lifecycle
from faasbase.loading import handler_of
from faasbase.settings import Settings
from tests.wire import call

ANSWER_MILLISECONDS = 500


class Channel(Protocol):
    """Where a function's events come from and go to; *prefix* is that of their attributes among the headers."""

    prefix: str
    destination: str
    url: str
    publish_url: str
    deadletter_url: str

    def serving(self, handler: ModuleType, settings: Settings) -> AbstractAsyncContextManager[None]:
        """Do what *handler* needs beside fetching while the block lasts."""

    async def write(self, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Put a message there as any other program would."""

    async def letters(self) -> list[DeadLetter]:
        """Return the dead letters that are kept."""


class _Fetched:
    """What is fetched needs nothing but its source, and has its dead letters beside it."""

    deadletter_url = ""

    @asynccontextmanager
    async def serving(self, handler: ModuleType, settings: Settings) -> AsyncIterator[None]:
        async with opened_publisher(settings):
            yield


class MemoryChannel(_Fetched):
    """A topic in this process."""

    prefix = "ce-"

    def __init__(self) -> None:
        self.destination = "orders"
        self.url = self.publish_url = "memory://orders"

    async def write(self, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        memory_broker().write(self.destination, content, headers)

    async def letters(self) -> list[DeadLetter]:
        return list(memory_broker().dead_letters)


class NatsChannel(_Fetched):
    """A stream of its own."""

    prefix = "ce-"

    def __init__(self, server: NatsServer) -> None:
        name = uuid.uuid4().hex[:8]
        self._server, self._stream = server, f"S{name}"
        self.destination = f"orders.{name}"
        self.url = f"{server.url}/{self._stream}?durable=d{name}"
        self.publish_url = f"{server.url}/{self.destination}"

    async def open(self) -> None:
        async with await nats.connect(self._server.url) as client:
            await client.jetstream().add_stream(name=self._stream, subjects=[self.destination])

    async def write(self, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        async with await nats.connect(self._server.url) as client:
            await client.jetstream().publish(self.destination, content, headers=dict(headers or {}))

    async def letters(self) -> list[DeadLetter]:
        return await _letters_in(self._server, f"d{self._stream[1:]}-dead-letters")


class KafkaChannel(_Fetched):
    """A topic with two partitions."""

    prefix = "ce_"

    def __init__(self, server: KafkaServer) -> None:
        self._server = server
        self.destination = f"orders-{uuid.uuid4().hex[:8]}"
        self.url = f"{server.url}/{self.destination}?group={self.destination}"
        self.publish_url = f"{server.url}/{self.destination}"

    async def open(self) -> None:
        await self._server.create_topic(self.destination, 2)

    async def write(self, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        producer = AIOKafkaProducer(bootstrap_servers=self._server.bootstrap)
        await producer.start()
        try:
            given = [(name, value.encode()) for name, value in (headers or {}).items()]
            await producer.send_and_wait(self.destination, content, headers=given)
        finally:
            await producer.stop()

    async def letters(self) -> list[DeadLetter]:
        topic = f"{self.destination}.dead-letters"
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=self._server.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        try:
            found = await consumer.getmany(timeout_ms=ANSWER_MILLISECONDS)
        finally:
            await consumer.stop()
        return [read_letter(kept.value or b"", kept.headers) for records in found.values() for kept in records]


class HttpChannel:
    """A function that events are pushed to; its dead letters are in a stream."""

    prefix = "ce-"
    url = "http:"

    def __init__(self, server: NatsServer) -> None:
        # It listens before it serves: what comes at once waits.
        self._server, self._listener = server, socket.create_server(("127.0.0.1", 0))
        self._port = self._listener.getsockname()[1]
        self._stream = f"L{uuid.uuid4().hex[:8]}"
        self.destination = "fulfil"
        self.publish_url = f"http://127.0.0.1:{self._port}/function/fulfil"
        self.deadletter_url = f"{server.url}/{self._stream}"

    @asynccontextmanager
    async def serving(self, handler: ModuleType, settings: Settings) -> AsyncIterator[None]:
        lifecycle = Lifecycle()
        lifecycle.listening = lifecycle.started = True
        app = build_app(handler_of(handler), settings, lifecycle)
        server = uvicorn.Server(uvicorn.Config(app, log_config=None))
        async with resources(settings):
            running = asyncio.create_task(server.serve([self._listener]))
            try:
                yield
            finally:
                server.should_exit = True
                await running

    async def write(self, content: bytes, headers: Mapping[str, str] | None = None) -> None:
        await call(self._port, "/", method="POST", headers=headers or {}, body=content)

    async def letters(self) -> list[DeadLetter]:
        return await _letters_in(self._server, self._stream)


async def _letters_in(server: NatsServer, stream: str) -> list[DeadLetter]:
    async with await nats.connect(server.url) as client:
        asking = client.jetstream()
        last = (await asking.stream_info(stream)).state.last_seq
        found = [await asking.get_msg(stream, sequence) for sequence in range(1, last + 1)]
    return [
        read_letter(kept.data or b"", [(name, value.encode()) for name, value in (kept.headers or {}).items()])
        for kept in found
    ]


@asynccontextmanager
async def opened_channel(name: str, servers: Mapping[str, Any]) -> AsyncIterator[Channel]:
    """Give a new place on the transport *name*, on the one of *servers* that it needs."""
    channel: Channel = MemoryChannel()
    if name == "nats":
        channel = on_nats = NatsChannel(servers["nats_server"])
        await on_nats.open()
    elif name == "http":
        channel = HttpChannel(servers["nats_server"])
    elif name == "kafka":
        channel = on_kafka = KafkaChannel(servers["kafka"])
        await on_kafka.open()
    yield channel

"""What tests of Kafka share: a handler that does as its orders say and keeps a journal, and clients of the broker."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from deploy.brokers.kafka import KafkaServer
from faasbase.events.kafka.records import Message
from tests.child import Process
from tests.processes import Running, run_function
from tests.servers_kafka import new_name

HANDLER = """
import asyncio
import os
import time

from faasbase import Event, Reject, Retry, current_delivery, on_event, publish

journal = os.open(os.environ["JOURNAL"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def note(what, event, delivery):
    key = (delivery.key or b"-").decode()
    line = f"{what} {key} {event.data['n']} {delivery.attempt} {os.getpid()} {delivery.position} {time.time()}\\n"
    os.write(journal, line.encode())


@on_event("order.created")
async def fulfil(event: Event[dict]) -> None:
    delivery = current_delivery()
    note("begin", event, delivery)
    await asyncio.sleep(event.data.get("seconds", 0.0))
    if delivery.attempt <= event.data.get("failures", 0):
        raise Retry("not yet", after_seconds=event.data.get("after"))
    if event.data.get("reject"):
        raise Reject("such orders are not taken")
    if event.data.get("exit"):
        os._exit(9)
    if topic := event.data.get("publish"):
        await publish("order.fulfilled", {"n": event.data["n"]}, key=delivery.key, to=topic)
    note("end", event, delivery)


@on_event("order.threaded")
def threaded(event: Event[dict]) -> None:
    delivery = current_delivery()
    time.sleep(event.data.get("seconds", 0.0))
    note("end", event, delivery)

"""
BATCHES = (
    HANDLER
    + """

@on_event("order.counted", batch_size=5, batch_wait=0.3)
async def counted(events: list[Event[dict]]) -> None:
    for event in events:
        note(f"batch-of-{len(events)}", event, current_delivery())
"""
)
SESSION = "500ms"
"""What replicas of tests may be silent: one that was killed is missed so soon."""


class Note(NamedTuple):
    """A line of the journal."""

    what: str
    key: str
    number: int
    attempt: int
    pid: int
    position: str
    at: float


@dataclass
class Orders:
    """A topic, a group of its own, and the journal of those who handle its orders."""

    server: KafkaServer
    topic: str
    journal: Path
    group: str
    access: Mapping[str, Any] = field(default_factory=dict)
    """What clients of the tests' own need beside the address."""
    lanes: int = 8
    """How many orders of a partition replicas handle at a time."""

    def url(self, more: str = "") -> str:
        return f"{self.server.url}/{self.topic}?group={self.group}{more}"

    def function(self, source: str = HANDLER, **env: str | None) -> Running:
        """Run a replica of the function *source*."""
        given: dict[str, str | None] = {
            "EVENTS_URL": self.url(),
            "JOURNAL": str(self.journal),
            "EVENTS_SESSION_TIMEOUT": SESSION,
            "EVENTS_COMMIT_INTERVAL": "200ms",
            "EVENTS_RETRY_BASE": "20ms",
            "EVENTS_RETRY_CAP": "50ms",
        }
        return run_function(source, **{**given, **env})

    def notes(self, what: str | None = None) -> list[Note]:
        """Return the lines of the journal so far, or those of *what*."""
        text = self.journal.read_text() if self.journal.exists() else ""
        words = [line.split() for line in text.split("\n")[:-1]]
        notes = [Note(w[0], w[1], int(w[2]), int(w[3]), int(w[4]), w[5], float(w[6])) for w in words]
        return [note for note in notes if what in (None, note.what)]

    def handled(self) -> set[int]:
        """Return the numbers of the orders that were handled to the end."""
        return {note.number for note in self.notes("end")}

    async def all_handled(self, numbers: Iterable[int], *, timeout_seconds: float = 20.0) -> None:
        """Wait until all orders with these *numbers* were handled."""
        wanted = set(numbers)
        await eventually(lambda: wanted <= self.handled(), "all handled", timeout_seconds)

    async def committed(self) -> dict[int, tuple[int, str]]:
        """Return offset and metadata by partition, as the broker has them."""
        return await committed(self.server, self.group, self.topic)

    async def letters(self, count: int, *, timeout_seconds: float = 15.0) -> list[Message]:
        """Wait for *count* dead letters and return them."""
        return await read_all(self.server, f"{self.group}.dead-letters", count, timeout_seconds=timeout_seconds)


async def eventually(look: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Wait until *look* is true."""
    until = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > until:
            raise AssertionError(f"not {what} within {seconds} s")
        await asyncio.sleep(0.03)
    assert found


def order(number: int, **told: Any) -> bytes:
    """Return the content of an order."""
    return json.dumps({"n": number, **told}).encode()


def attributes(kind: str = "order.created", event_id: str = "e-1") -> list[tuple[str, bytes]]:
    """Return the headers of an event in binary mode."""
    told = {"ce_id": event_id, "ce_source": "/shop", "ce_type": kind, "ce_specversion": "1.0"}
    return [(name, value.encode()) for name, value in {**told, "content-type": "application/json"}.items()]


@asynccontextmanager
async def producer(server: KafkaServer, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    """Give a producer that is connected."""
    made = AIOKafkaProducer(bootstrap_servers=server.bootstrap, **options)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def send(orders: Orders, contents: Sequence[tuple[str | None, bytes]], kind: str = "order.created") -> None:
    """Send orders with their keys."""
    async with producer(orders.server, **orders.access) as made:
        sent = [
            await made.send(orders.topic, content, key=key.encode() if key else None, headers=attributes(kind))
            for key, content in contents
        ]
        await asyncio.gather(*sent)


async def committed(server: KafkaServer, group: str, topic: str) -> dict[int, tuple[int, str]]:
    """Return what *group* has committed of *topic*, by partition."""
    from aiokafka.admin import AIOKafkaAdminClient

    admin = AIOKafkaAdminClient(bootstrap_servers=server.bootstrap)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(group)
    finally:
        await admin.close()
    return {place.partition: (at.offset, at.metadata) for place, at in found.items() if place.topic == topic}


async def read_all(server: KafkaServer, topic: str, count: int, *, timeout_seconds: float = 15.0) -> list[Message]:
    """Wait for *count* records of *topic*, read from its beginning."""
    reader = AIOKafkaConsumer(topic, bootstrap_servers=server.bootstrap, auto_offset_reset="earliest")
    await reader.start()
    found: list[Message] = []
    try:
        async with asyncio.timeout(timeout_seconds):
            while len(found) < count:
                batch = await reader.getmany(timeout_ms=200)
                found += [record for records in batch.values() for record in records]
    finally:
        await reader.stop()
    return found


def by_key(notes: Iterable[Note]) -> dict[str, list[int]]:
    """Return the numbers in the order of the journal, for each key."""
    found: defaultdict[str, list[int]] = defaultdict(list)
    for note in notes:
        found[note.key].append(note.number)
    return dict(found)


def orders_of(server: KafkaServer, topic: str, folder: Path) -> Orders:
    """Return *topic* with a new group and an empty journal in *folder*."""
    return Orders(server, topic, folder / "journal", new_name("group"))


async def series(function: Process, name: str) -> dict[str, float]:
    """Return the values of the metric *name* by their labels as they are written."""
    from tests.wire import call

    text = (await call(function.metrics_port, "/metrics")).text
    lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith(f"{name}{{")]
    return {labels: float(value) for labels, _, value in lines}

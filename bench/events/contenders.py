"""Those who are measured, each a process of its own: ``python -m bench.events.contenders NAME SERVER TOPIC COUNT``."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from types import ModuleType

import uvloop
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord
from faststream import AckPolicy
from faststream.kafka import KafkaBroker

from faasbase import Event, on_event, tracing
from faasbase.event_policy import EventsPolicy
from faasbase.events import event_handlers
from faasbase.events.sources import open_sources
from faasbase.export import otlp_provider
from faasbase.redaction import Redactor
from faasbase.settings import load_settings

from .orders import PARTITIONS, TYPE, Order

MOST_UNCOMMITTED = PARTITIONS * EventsPolicy().max_uncommitted
STOP_SECONDS = 10.0


class Count:
    """Counts *total* handled records, and what they take but for the first tenth, in which everything starts."""

    def __init__(self, total: int) -> None:
        self._left, self._counted = total, total - total // 10
        self.done = asyncio.Event()
        self._began = self._ended = 0.0, 0.0

    def one(self) -> None:
        """Count a record."""
        self._left -= 1
        if self._left == self._counted:
            self._began = time.perf_counter(), time.process_time()
        elif not self._left:
            self._ended = time.perf_counter(), time.process_time()
            self.done.set()

    @property
    def figures(self) -> dict[str, float]:
        """What was measured."""
        seconds, cpu_seconds = (end - began for end, began in zip(self._ended, self._began, strict=True))
        return {"records a second": self._counted / seconds, "CPU us a record": cpu_seconds / self._counted * 1e6}


async def ours(server: str, topic: str, group: str, count: Count) -> None:
    """Run this project's source and processor, with tracing as a function has it."""

    @on_event(TYPE)
    async def handle(event: Event[Order]) -> None:
        count.one()

    settings = load_settings({**os.environ, "EVENTS_URL": f"kafka://{server}/{topic}?group={group}"})
    if settings.tracing_enabled:
        tracing.use_provider(otlp_provider(settings, Redactor(settings.secrets_dir)))
    module = ModuleType("handler")
    module.__dict__["handle"] = handle
    (source,), processor = open_sources(event_handlers(module), settings)
    await source.start()
    running = asyncio.create_task(source.run())
    await count.done.wait()
    source.stop()
    await source.drain(STOP_SECONDS)
    await running
    await processor.close()


async def validating_loop(server: str, topic: str, group: str, count: Count) -> None:
    """Decode and validate each record, and commit behind each poll: as much is repeated at most as by us."""

    async def handle(event: Event[Order]) -> None:
        count.one()

    async def each(record: ConsumerRecord) -> None:
        headers = {name: value.decode() for name, value in record.headers}
        attributes = {name[3:]: value for name, value in headers.items() if name.startswith("ce_")}
        attributes["datacontenttype"] = headers.get("content-type", "")
        await handle(Event[Order].model_validate({**attributes, "data": json.loads(record.value)}))

    await _loop(server, topic, group, count, each)


async def raw_loop(server: str, topic: str, group: str, count: Count) -> None:
    """Look at no record, and commit behind each poll."""

    async def each(record: ConsumerRecord) -> None:
        count.one()

    await _loop(server, topic, group, count, each)


async def faststream(server: str, topic: str, group: str, count: Count) -> None:
    """Run a subscriber of FastStream that settles each record once it is handled."""
    broker = KafkaBroker(server, logger=None)

    @broker.subscriber(topic, group_id=group, ack_policy=AckPolicy.NACK_ON_ERROR, auto_offset_reset="earliest")
    async def handle(order: Order) -> None:
        count.one()

    await broker.start()
    await count.done.wait()
    await broker.stop()


async def _loop(
    server: str, topic: str, group: str, count: Count, each: Callable[[ConsumerRecord], Awaitable[None]]
) -> None:
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=server,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
    )
    await consumer.start()
    try:
        while not count.done.is_set():
            batch = await consumer.getmany(timeout_ms=200, max_records=MOST_UNCOMMITTED)
            for records in batch.values():
                for record in records:
                    await each(record)
            if batch:
                await consumer.commit()
    finally:
        await consumer.stop()


CONTENDERS: dict[str, Callable[[str, str, str, Count], Awaitable[None]]] = {
    "faasbase": ours,
    "aiokafka, validating": validating_loop,
    "aiokafka, raw": raw_loop,
    "FastStream": faststream,
}


async def _main(name: str, server: str, topic: str, total: int) -> dict[str, float]:
    count = Count(total)
    # As a function does once it has started.
    gc.freeze()
    await CONTENDERS[name](server, topic, f"{name.split(',')[0]}-{time.time_ns()}", count)
    return count.figures


if __name__ == "__main__":
    print(json.dumps(uvloop.run(_main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))))

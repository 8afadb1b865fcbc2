"""What waits on the broker takes no memory of those who handle it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from deploy.brokers.kafka import KafkaServer
from tests.kafka_orders import attributes, eventually, order, orders_of, producer
from tests.servers_kafka import MakeTopic

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600 if os.environ.get("EVENTS_SOAK") else 120)]

WAITING = 1_000_000 if os.environ.get("EVENTS_SOAK") else 60_000
PARTITIONS = 4
SOME_MIB = 60
"""A thousand records for each partition, and what the library has fetched of the next ones."""


async def test_messages_that_wait_take_no_memory(kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path) -> None:
    """Slow handlers hold a window of each partition, however much is behind it; the commits say so."""
    orders = orders_of(kafka, await make_topic(PARTITIONS), tmp_path)
    async with orders.function() as idle:
        await idle.log_line("given 4 partitions")
        before = idle.resident_bytes()
    padding = "x" * 300
    async with producer(kafka, linger_ms=20, max_batch_size=512 * 1024) as made:
        for begin in range(0, WAITING, 20_000):
            sent = [
                await made.send(orders.topic, order(n, seconds=60, pad=padding), key=b"%d" % n, headers=attributes())
                for n in range(begin, begin + 20_000)
            ]
            await asyncio.gather(*sent)
    async with orders.function(write_timeout="300ms", termination_grace_period="10s") as function:
        await eventually(lambda: len(orders.notes("begin")) == 8 * PARTITIONS, "busy")
        await asyncio.sleep(3)
        grown = (function.resident_bytes() - before) / 1024**2
        assert grown < SOME_MIB
        assert function.stop() == 0
    assert {offset for offset, _ in (await orders.committed()).values()} == {0}


async def test_large_messages_are_taken_as_they_are_handled(
    kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """Far fewer than a thousand fit into what a partition may hold of them; all are handled in the end."""
    orders = orders_of(kafka, await make_topic(1), tmp_path)
    async with orders.function() as idle:
        await idle.log_line("given 1 partitions")
        before = idle.resident_bytes()
    padding = "x" * 900_000
    async with producer(kafka) as made:
        for number in range(120):
            content = order(number, seconds=0.15, pad=padding)
            await made.send_and_wait(orders.topic, content, key=b"%d" % number, headers=attributes())
    most = 0
    async with orders.function() as function:
        while len(orders.handled()) < 120:
            await asyncio.sleep(0.1)
            most = max(most, function.resident_bytes())
    assert (most - before) / 1024**2 < SOME_MIB

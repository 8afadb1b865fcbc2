"""An order that waits for its next try while the replicas of its group come and go."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from deploy.brokers.kafka import KafkaServer
from tests.kafka_orders import order, orders_of, send
from tests.servers_kafka import MakeTopic

pytestmark = pytest.mark.anyio


async def test_order_that_waits_for_its_next_try_waits_on_with_other_replicas(
    kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """A rebalance, a stop and a kill each give it a new owner; none costs it an attempt."""
    orders = orders_of(kafka, await make_topic(2), tmp_path)
    await send(orders, [("k", order(0, failures=1, after=7)), ("k", order(1)), ("k2", order(2))])
    async with orders.function() as first:
        await orders.all_handled([2])
        async with orders.function() as second:
            await second.log_line("given 1 partitions")
            first.send_signal(signal.SIGTERM)
            assert await first.exited() == 0
            await second.log_line("given 2 partitions")
            second.send_signal(signal.SIGKILL)
            await second.exited()
    async with orders.function():
        await orders.all_handled([0, 1])
    tries = [note for note in orders.notes("begin") if note.number == 0]
    assert [note.attempt for note in tries] == [1, 2]
    assert 6.4 < tries[1].at - tries[0].at < 20
    assert [note.number for note in orders.notes("end")] == [2, 0, 1]

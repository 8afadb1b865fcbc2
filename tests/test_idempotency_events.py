"""`@idempotent` handlers of events that a broker brings, whose replicas are killed in the middle of a run."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from deploy.brokers.kafka import KafkaServer
from tests.kafka_orders import eventually, order, orders_of, send
from tests.servers import RedisServer
from tests.servers_kafka import MakeTopic

pytestmark = pytest.mark.anyio

HANDLER = """
import asyncio

from faasbase import Event, idempotent, on_event


@on_event("order.created")
@idempotent(in_progress="3s")
async def reserve(event: Event[dict]) -> None:
    print("begin", flush=True)
    await asyncio.sleep(event.data["seconds"])
    print("end", flush=True)
"""


async def test_event_whose_run_was_killed_runs_again(kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path) -> None:
    """When the lease of the dead owner is over, with an attempt of its own; its duplicates never run."""
    orders = orders_of(kafka, await make_topic(1), tmp_path)
    await send(orders, [("k", order(0, seconds=1.5)), ("other", order(0, seconds=1.5))])
    with RedisServer(tmp_path / "redis") as server:
        settings = {"IDEMPOTENCY_URL": server.url, "EVENTS_MAX_ATTEMPTS": "2"}
        async with orders.function(HANDLER, **settings) as function:
            await eventually(lambda: "begin" in function.output(), "begun", 20.0)
            await asyncio.sleep(0.5)
            function.send_signal(signal.SIGKILL)
            await function.exited()
        async with orders.function(HANDLER, **settings) as function:
            async with asyncio.timeout(20):
                while (await orders.committed())[0][0] < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            lines = function.output()
    assert (lines.count("begin"), lines.count("end"), lines.count("dead letter")) == (1, 1, 0)

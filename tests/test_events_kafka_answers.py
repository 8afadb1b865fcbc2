"""A cluster that answers late or not at all at the wrong time: the library is made to say so, as it does then."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from deploy.brokers.kafka import KafkaServer
from faasbase.events.kafka.offset_metadata import decode
from tests.kafka_orders import HANDLER, Orders, eventually, order, orders_of, send
from tests.servers_kafka import MakeTopic

pytestmark = pytest.mark.anyio

LATE = """
import asyncio
from aiokafka import AIOKafkaConsumer
from faasbase.events.kafka import commits

commits.FIRST_COMMIT_SECONDS = 0.3
answered, asked = AIOKafkaConsumer.{name}, []


async def late(self, *given):
    asked.append(given)
    if len(asked) == {which}:
        print("held", flush=True)
        {trouble}
    return await answered(self, *given)


AIOKafkaConsumer.{name} = late
"""
IDLE = """
from aiokafka.consumer.subscription_state import SubscriptionState

SubscriptionState.fetcher_idle_time = 400.0
"""


def late(name: str, which: int, trouble: str) -> str:
    """Return a function whose library has *trouble* when it is asked for *name* the time *which*."""
    return LATE.format(name=name, which=which, trouble=trouble) + HANDLER


@pytest.fixture
def make_orders(kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path) -> Callable[[], Awaitable[Orders]]:
    """Give ``await make_orders()``, with five of them."""

    async def make() -> Orders:
        orders = orders_of(kafka, await make_topic(1), tmp_path)
        await send(orders, [(f"k{n}", order(n)) for n in range(5)])
        return orders

    return make


@pytest.mark.parametrize(
    ("name", "trouble"),
    [
        ("commit", "await asyncio.sleep(1)"),
        ("beginning_offsets", "raise __import__('aiokafka').errors.KafkaTimeoutError"),
    ],
)
async def test_partition_is_opened_once_the_cluster_answers(
    make_orders: Callable[[], Awaitable[Orders]], name: str, trouble: str
) -> None:
    """Nobody else would: it is ours, and heartbeats go on."""
    orders = await make_orders()
    async with orders.function(late(name, 1, trouble)) as function:
        await orders.all_handled(range(5))
        assert "held" in function.output()
        assert function.stop() == 0


async def test_end_of_the_commits_ends_the_process(make_orders: Callable[[], Awaitable[Orders]]) -> None:
    """Without them a window fills and nothing more is fetched, which no one would see."""
    orders = await make_orders()
    async with orders.function(late("commit", 2, "raise RuntimeError('the canary')")) as function:
        assert await function.exited() == 1
        await function.log_line("are no longer fetched: the canary")


async def test_member_that_asks_for_nothing_stays_in_the_group(make_orders: Callable[[], Awaitable[Orders]]) -> None:
    """While all its partitions are full it has nothing to ask for, for minutes: here the library takes it for so."""
    orders = await make_orders()
    await send(orders, [("k", order(5, seconds=1))])
    async with orders.function(IDLE + HANDLER):
        await orders.all_handled(range(6))
        await send(orders, [("k", order(6))])
        await orders.all_handled([6], timeout_seconds=3)


async def test_order_that_waits_for_its_commit_is_not_begun_after_the_stop(
    kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """What may have ended a process runs only when that is committed; it is no attempt if it never runs."""
    orders = orders_of(kafka, await make_topic(1), tmp_path)
    await send(orders, [("k", order(0, seconds=1))])
    async with orders.function() as function:
        await eventually(lambda: len(orders.notes("begin")) == 1, "begun")
        function.send_signal(signal.SIGKILL)
        await function.exited()
    source = late("commit", 1, "await asyncio.sleep(1)").replace("SECONDS = 0.3", "SECONDS = 5.0")
    async with orders.function(source) as function:
        await function.log_line("held")
        assert function.stop() == 0
    assert len(orders.notes("begin")) == 1
    async with orders.function():
        await orders.all_handled([0])
    assert [note.attempt for note in orders.notes("begin")] == [1, 1]


async def test_broker_that_takes_little_metadata_has_the_most_needed_of_it(tmp_path: Path) -> None:
    """Whether a process has ended in the middle of an order; and the first start of a group is no error."""
    with KafkaServer(tmp_path / "kafka", settings={"offset.metadata.max.bytes": "80"}) as server:
        await server.create_topic("orders", 1)
        orders = orders_of(server, "orders", tmp_path)
        await send(orders, [(f"k{n}", order(n, seconds=60 * (n % 4 == 1), failures=n % 3)) for n in range(200)])
        async with orders.function(EVENTS_LANES="100") as function:
            await eventually(lambda: len(orders.handled()) >= 150, "handled")
            await function.log_line("less metadata")
            function.send_signal(signal.SIGKILL)
            await function.exited()
            assert [line for line in function.logs() if line["level"] == "error"] == []
        offset, metadata = (await orders.committed())[0]
    assert not decode(offset, metadata).clean

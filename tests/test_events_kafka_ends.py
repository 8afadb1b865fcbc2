"""Replicas that end, in peace or not, and groups that are shared out anew: what is lost (nothing) and what repeated."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from deploy.brokers.kafka import KafkaServer
from tests.child import Process
from tests.kafka_orders import Note, Orders, eventually, order, orders_of, send
from tests.servers_kafka import MakeTopic

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1800 if os.environ.get("EVENTS_SOAK") else 120)]

PARTITIONS = 4
UNCOMMITTED_SECONDS = 1.0
"""The tests' interval between commits is a fifth of it; the rest is for a machine that is busy."""


@dataclass(frozen=True)
class Size:
    """How much is sent, how long an order takes at most, and how often something ends."""

    orders: int
    keys: int
    seconds: float
    ends: int
    patience_seconds: float


SHORT = Size(600, 120, 0.05, 3, 30.0)
LONG = Size(20_000, 500, 0.2, 50, 900.0)
SIZE = LONG if os.environ.get("EVENTS_SOAK") else SHORT


@pytest.fixture
async def orders(kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path) -> Orders:
    """Give a topic with orders that take from no time up to the size's."""
    orders = orders_of(kafka, await make_topic(PARTITIONS), tmp_path)
    chance = random.Random(7)
    numbers = range(SIZE.orders)
    contents = [order(n, seconds=round(chance.uniform(0, SIZE.seconds), 4)) for n in numbers]
    await send(orders, [(f"k{n % SIZE.keys}", content) for n, content in zip(numbers, contents, strict=True)])
    return orders


async def in_the_middle(orders: Orders, function: Process, ended: int) -> None:
    """Wait until *function* has ended at least *ended* orders and has others in every lane of a partition."""

    def busy() -> bool:
        mine = [note for note in orders.notes() if note.pid == function.pid]
        ends = {note.position for note in mine if note.what == "end"}
        lanes = Counter(note.position.rpartition("/")[0] for note in mine if note.position not in ends)
        return len(ends) >= ended and max(lanes.values(), default=0) == orders.lanes

    await eventually(busy, "busy", 30.0)


def check_order(notes: Iterable[Note]) -> None:
    """Assert that each replica has begun the orders of a key one by one, in their order."""
    latest: dict[tuple[int, str], Note] = {}
    for note in notes:
        before = latest.get((note.pid, note.key))
        if note.what == "begin" and before is not None:
            assert before.what == "end", (before, note)
            assert before.number < note.number, (before, note)
        latest[note.pid, note.key] = note


async def test_killed_replica_loses_nothing_and_repeats_little(orders: Orders) -> None:
    """Again comes what was in work, and what was settled since the last commit."""
    killed: dict[int, float] = {}
    for _ in range(SIZE.ends):
        async with orders.function() as function:
            await in_the_middle(orders, function, SIZE.orders // SIZE.ends // 2)
            function.send_signal(signal.SIGKILL)
            await function.exited()
            killed[function.pid] = max(note.at for note in orders.notes() if note.pid == function.pid)
    async with orders.function():
        await orders.all_handled(range(SIZE.orders), timeout_seconds=SIZE.patience_seconds)
    check_order(orders.notes())
    ended: dict[int, Note] = {}
    for note in orders.notes():
        if note.what == "begin" and note.number in ended:
            before = ended[note.number]
            assert killed[before.pid] - before.at < UNCOMMITTED_SECONDS, (before, note)
        if note.what == "end":
            ended[note.number] = note


async def test_stopped_replica_repeats_nothing(orders: Orders) -> None:
    """What was begun is handled to its end and committed before it leaves."""
    for _ in range(SIZE.ends):
        async with orders.function() as function:
            await in_the_middle(orders, function, SIZE.orders // SIZE.ends // 2)
            function.send_signal(signal.SIGTERM)
            assert await function.exited() == 0
    async with orders.function():
        await orders.all_handled(range(SIZE.orders), timeout_seconds=SIZE.patience_seconds)
    check_order(orders.notes())
    assert {n for n, times in Counter(note.number for note in orders.notes("begin")).items() if times > 1} == set()


async def test_replicas_that_come_and_go_repeat_nothing(orders: Orders) -> None:
    """Whoever has to give a partition up ends what runs first."""
    orders.lanes = 8 if SIZE is LONG else 1
    lanes = {"EVENTS_LANES": str(orders.lanes)}
    async with orders.function(**lanes) as first:
        await in_the_middle(orders, first, SIZE.orders // 20)
        for _ in range(min(SIZE.ends, 5)):
            async with orders.function(**lanes) as other:
                await in_the_middle(orders, other, 5)
                other.send_signal(signal.SIGTERM)
                assert await other.exited() == 0
        await orders.all_handled(range(SIZE.orders), timeout_seconds=SIZE.patience_seconds)
        assert first.status is None
    check_order(orders.notes())
    assert {n for n, times in Counter(note.number for note in orders.notes("begin")).items() if times > 1} == set()
    assert len({note.pid for note in orders.notes()}) == 1 + min(SIZE.ends, 5)


def is_over(orders: Orders, function: Process) -> bool:
    """Tell whether *function* has ended, or all orders but one are handled."""
    return function.status is not None or len(orders.handled()) == 11


async def test_order_that_ends_the_process_becomes_a_dead_letter(
    kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """In the end it runs alone, so that no other order is taken for it; all others are handled."""
    orders = orders_of(kafka, await make_topic(1), tmp_path)
    await send(orders, [(f"k{n}", order(n, seconds=0.05, exit=n == 3)) for n in range(12)])
    statuses = []
    for _ in range(8):
        async with orders.function(EVENTS_MAX_ATTEMPTS="3", EVENTS_SESSION_TIMEOUT="300ms") as function:
            await eventually(partial(is_over, orders, function), "over", 20.0)
            if function.status is None:
                (letter,) = await orders.letters(1)
                break
            statuses.append(function.status)
    told = dict(letter.headers)
    assert (letter.value, told["deadletter-error"]) == (order(3, seconds=0.05, exit=True), b"ProcessEnded")
    assert set(statuses) == {9}
    assert 4 <= len(statuses) <= 5
    last = [note for note in orders.notes("begin") if note.number == 3][-1]
    at_work: Counter[int] = Counter()
    for note in orders.notes():
        if note.pid == last.pid and note.at <= last.at:
            at_work[note.number] += 1 if note.what == "begin" else -1
    assert [number for number, count in at_work.items() if count] == [3]


async def test_slow_handler_stays_in_the_group(kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path) -> None:
    """However much longer than a session it takes."""
    orders = orders_of(kafka, await make_topic(1), tmp_path)
    await send(orders, [("k", order(0, seconds=3)), ("k", order(1))])
    async with orders.function() as function:
        await orders.all_handled([0, 1])
        lines = [line for line in function.lines() if "given 1 partitions" in line]
    assert len(lines) == 1
    assert len(orders.notes("begin")) == 2


async def test_handler_that_outlives_the_stop_is_cancelled_and_comes_again(
    kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """Its time is over, yet it is not settled: the next replica has it."""
    orders = orders_of(kafka, await make_topic(1), tmp_path)
    await send(orders, [("k", order(0, seconds=2)), ("k2", order(1))])
    async with orders.function(write_timeout="300ms", termination_grace_period="10s") as function:
        await eventually(lambda: len(orders.notes("begin")) == 2, "begun")
        assert function.stop() == 0
    assert orders.handled() == {1}
    async with orders.function():
        await orders.all_handled([0])
    assert [note.attempt for note in orders.notes("begin") if note.number == 0] == [1, 2]


async def test_stop_does_not_wait_for_what_a_newcomer_is_given(
    kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """A new version comes and the old one is stopped: of what has to be given up nothing gets longer than the stop."""
    orders = orders_of(kafka, await make_topic(2), tmp_path)
    await send(orders, [(f"k{n}", order(n, seconds=60)) for n in range(8)])
    env = {"write_timeout": "1s", "termination_grace_period": "12s"}
    async with orders.function(**env) as first:
        await eventually(lambda: len(orders.notes("begin")) == 8, "begun")
        async with orders.function(**env).unwaited():
            await first.log_line("is rebalancing", timeout_seconds=10.0)
            asked = time.monotonic()
            first.send_signal(signal.SIGTERM)
            assert await first.exited() == 0
            assert time.monotonic() - asked < 5
            assert "not committed" not in first.output()
            await eventually(lambda: len(orders.notes("begin")) > 8, "begun anew")


async def test_topic_that_is_deleted_ends_the_process(
    kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """There is nothing that trying on would bring."""
    orders = orders_of(kafka, await make_topic(1), tmp_path)
    async with orders.function() as function:
        await function.log_line("given 1 partitions")
        kafka.tool("org.apache.kafka.tools.TopicCommand", "--delete", "--topic", orders.topic)
        assert await function.exited() == 1
        await function.log_line(f"there is no topic {orders.topic} any more")


async def test_topic_that_is_deleted_holds_no_other_up(
    kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """Its offsets can be committed no more, those of the other one can."""
    orders, other = orders_of(kafka, await make_topic(1), tmp_path), orders_of(kafka, await make_topic(1), tmp_path)
    url = orders.url().replace(orders.topic, f"{orders.topic},{other.topic}")
    async with orders.function(EVENTS_URL=url, EVENTS_MAX_UNCOMMITTED="50") as function:
        await function.log_line("given 2 partitions")
        await send(other, [(f"k{n}", order(n)) for n in range(2000, 2040)])
        await orders.all_handled(range(2000, 2040))
        await delete(other)
        await send(orders, [(f"k{n}", order(n)) for n in range(2000)])
        await orders.all_handled(range(2000), timeout_seconds=8)
        await function.log_line(f"there is no topic {other.topic} any more")
        assert function.stop() == 0


async def delete(orders: Orders) -> None:
    """Delete the topic."""
    admin = AIOKafkaAdminClient(bootstrap_servers=orders.server.bootstrap)
    await admin.start()
    await admin.delete_topics([orders.topic])
    await admin.close()

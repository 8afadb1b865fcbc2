"""Records that the library cannot read beside ones that it can, and what else makes it drop what it has fetched."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import anyio
import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from deploy.brokers.kafka import KafkaServer
from tests.kafka_orders import Orders, attributes, eventually, order, orders_of, producer, send, series
from tests.servers_kafka import MakeTopic, new_name

pytestmark = pytest.mark.anyio


async def send_strange(orders: Orders, partition: int) -> None:
    """Write a record with a header whose name is no UTF-8."""
    command = [b"kcat", b"-P", b"-b", orders.server.bootstrap.encode(), b"-t", orders.topic.encode()]
    await anyio.run_process([*command, b"-p", b"%d" % partition, b"-H", b"\xff\xfe=1"], input=b"strange")


async def test_partition_beside_one_with_a_strange_name_loses_nothing(
    kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """What the library drops when it fails at one partition are records of all others."""
    orders = orders_of(kafka, await make_topic(2), tmp_path)
    sent = 0
    async with orders.function() as function, producer(kafka, acks=1) as made:
        await function.log_line("given 2 partitions")
        for _ in range(12):
            await asyncio.sleep(0.25)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(send_strange(orders, 1))
                for _ in range(30):
                    headers = attributes()
                    await made.send_and_wait(orders.topic, order(sent), partition=0, key=b"%d" % sent, headers=headers)
                    sent += 1
        await orders.all_handled(range(sent))
        assert len(await orders.letters(12)) == 12
        assert function.stop() == 0
    assert {partition: offset for partition, (offset, _) in (await orders.committed()).items()} == {0: sent, 1: 12}


async def test_aborted_orders_before_a_strange_name_are_not_handled(
    kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """The library tells them apart only of what it can read."""
    orders = orders_of(kafka, await make_topic(1), tmp_path)
    async with producer(kafka, transactional_id=new_name("t")) as made:
        for numbers, end in ((range(3), made.abort_transaction), (range(3, 5), made.commit_transaction)):
            await made.begin_transaction()
            for number in numbers:
                await made.send(orders.topic, order(number), key=b"k", headers=attributes())
            await end()
            await send_strange(orders, 0)
    async with orders.function() as function:
        await orders.all_handled([3, 4])
        await orders.letters(2)
        assert function.stop() == 0
    assert {note.number for note in orders.notes("begin")} == {3, 4}


async def test_log_that_begins_anew_is_handled_from_its_beginning(
    kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """It ends before what was committed, since it is another one or was cut; metrics tell of it as of any other."""
    orders = orders_of(kafka, await make_topic(1), tmp_path)
    place = TopicPartition(orders.topic, 0)
    before = AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, group_id=orders.group, enable_auto_commit=False)
    await before.start()
    before.assign([place])
    await before.commit({place: 1000})
    await before.stop()
    await send(orders, [(f"k{n}", order(n)) for n in range(5)])
    async with orders.function() as function:
        await orders.all_handled(range(5))
        assert set((await series(function, "faas_event_lag_messages")).values()) == {0.0}
        assert function.stop() == 0
    assert (await orders.committed())[0][0] == 5


@pytest.mark.parametrize("timestamp_ms", [-1, int(time.time() + 600) * 1000], ids=["none", "ahead"])
async def test_lag_is_never_told_by_times_that_cannot_be(
    kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path, timestamp_ms: int
) -> None:
    """A producer gives no time, or its clock is ahead."""
    orders = orders_of(kafka, await make_topic(1), tmp_path)
    async with producer(orders.server) as made:
        for number in range(2):
            headers = attributes()
            await made.send_and_wait(
                orders.topic, order(number, seconds=30), headers=headers, timestamp_ms=timestamp_ms
            )
    async with orders.function(write_timeout="1s") as function:
        await eventually(lambda: len(orders.notes("begin")) == 2, "begun")
        assert set((await series(function, "faas_event_lag_seconds")).values()) == {0.0}
        assert set((await series(function, "faas_event_lag_messages")).values()) == {2.0}

"""Events from Kafka: order, repeats, dead letters, and what is committed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from deploy.brokers.kafka import KafkaServer
from tests.kafka_orders import (
    BATCHES,
    Orders,
    attributes,
    by_key,
    eventually,
    order,
    orders_of,
    producer,
    send,
    series,
)
from tests.servers_kafka import MakeTopic, new_name

pytestmark = pytest.mark.anyio

MakeOrders = Callable[..., Awaitable[Orders]]


@pytest.fixture
def make_orders(kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path) -> MakeOrders:
    """Give ``await make_orders(partitions)``."""

    async def make(partitions: int = 1) -> Orders:
        return orders_of(kafka, await make_topic(partitions), tmp_path)

    return make


async def committed_to(orders: Orders, offset: int) -> bool:
    """Tell whether the group commits *offset* of the first partition, within a moment."""
    for _ in range(50):
        if (await orders.committed())[0][0] == offset:
            return True
        await anyio.sleep(0.1)
    return False


async def test_keys_keep_their_order_side_by_side(make_orders: MakeOrders) -> None:
    """One at a time for a key, several at a time for a partition."""
    orders = await make_orders()
    await send(orders, [(f"k{n % 4}", order(n, seconds=0.02)) for n in range(80)])
    async with orders.function():
        await orders.all_handled(range(80))
    notes = orders.notes()
    assert by_key(orders.notes("end")) == {f"k{k}": list(range(k, 80, 4)) for k in range(4)}
    for key in ("k0", "k1", "k2", "k3"):
        assert [note.what for note in notes if note.key == key] == ["begin", "end"] * 20
    assert notes[-1].at - notes[0].at < 80 * 0.02 / 2
    assert len({note.number for note in orders.notes("begin")}) == 80


async def test_key_that_fails_waits_while_others_go_on(make_orders: MakeOrders) -> None:
    """Its later orders wait behind it; a lane is not taken up."""
    orders = await make_orders()
    await send(orders, [("bad", order(0, failures=3, after=0.4)), ("bad", order(1))])
    await send(orders, [(f"good{n % 3}", order(n)) for n in range(10, 40)])
    async with orders.function(EVENTS_LANES="1"):
        await orders.all_handled([0, 1, *range(10, 40)])
    ends = [note.number for note in orders.notes("end")]
    assert ends[-2:] == [0, 1]
    assert [note.attempt for note in orders.notes("begin") if note.number == 0] == [1, 2, 3, 4]


async def test_order_none_spreads_freely(make_orders: MakeOrders) -> None:
    """One key's orders overtake one that is slow."""
    orders = await make_orders()
    await send(orders, [("k", order(0, seconds=0.5)), *(("k", order(n)) for n in range(1, 10))])
    async with orders.function(EVENTS_ORDER="none"):
        await orders.all_handled(range(10))
    assert orders.notes("end")[-1].number == 0


async def test_poison_becomes_a_dead_letter_as_it_was(make_orders: MakeOrders) -> None:
    """After its attempts, with bytes, key and headers; what comes behind it goes on."""
    orders = await make_orders()
    async with producer(orders.server) as made:
        headers = [*attributes(event_id="e-7"), ("x-trace", b"\xff\x00"), ("x-empty", None)]
        await made.send_and_wait(orders.topic, order(0, failures=99), key=b"k\xff", headers=headers)
    await send(orders, [("k1", order(1, reject=True)), ("k1", order(2))])
    async with orders.function(EVENTS_MAX_ATTEMPTS="3"):
        await orders.all_handled([2])
        letters = await orders.letters(2)
    told = {record.value: dict(record.headers) for record in letters}
    poison, rejected = told[order(0, failures=99)], told[order(1, reject=True)]
    assert (poison["deadletter-attempts"], poison["deadletter-position"]) == (b"3", f"{orders.topic}/0/0".encode())
    assert (poison["deadletter-key"], poison["x-trace"], poison["ce_id"]) == (b"6bff", b"\xff\x00", b"e-7")
    assert (rejected["deadletter-attempts"], rejected["deadletter-error"]) == (b"1", b"Reject")
    assert {record.key for record in letters} == {told["deadletter-id"] for told in (poison, rejected)}


async def test_malformed_records_never_stop_it(make_orders: MakeOrders) -> None:
    """Each is a dead letter, whatever is wrong with it, and the order behind it is handled."""
    orders = await make_orders()
    bad = attributes()
    strange: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]] = [
        (None, b"gone", []),
        (None, b"gone", [*bad]),
        (b"{", b"k", [*bad]),
        (b"\xff\xfe", None, [*bad]),
        (order(1), b"k", [("ce_id", None), *bad[1:]]),
        (order(1), b"k", [("ce_type", b"\xff\xff"), *bad[:2], *bad[3:]]),
        (order(1), b"k", [("content-type", b"application/cloudevents+json")]),
        (b"[" * 50_000, b"k", [("content-type", b"application/cloudevents+json")]),
        (order(1), b"", [("", b""), ("ce_", b"")]),
    ]
    async with producer(orders.server) as made:
        for value, key, headers in strange:
            await made.send_and_wait(orders.topic, value, key=key, headers=headers)
        twice = [("ce_id", b"first"), ("CE_ID", b"second"), *bad[1:]]
        await made.send_and_wait(orders.topic, order(2), key=b"k", headers=twice)
    async with orders.function() as function:
        await orders.all_handled([2])
        letters = await orders.letters(len(strange))
        assert "Traceback" not in function.output()
    assert len(letters) == len(strange)


async def test_names_of_headers_may_be_any_bytes(make_orders: MakeOrders) -> None:
    """The library cannot read them; nothing before or behind such a record is lost, nor the record."""
    orders = await make_orders()
    await send(orders, [("k", order(0)), ("k", order(1))])
    for _ in range(2):
        command = [b"kcat", b"-P", b"-b", orders.server.bootstrap.encode(), b"-t", orders.topic.encode()]
        command += [b"-H", b"\xff\xfe=1", b"-H", b"x=2"]
        await anyio.run_process(command, input=b"strange")
    await send(orders, [("k", order(2)), ("k", order(3))])
    async with orders.function() as function:
        await orders.all_handled(range(4))
        letters = await orders.letters(2)
        assert function.stop() == 0
    assert [(record.value, dict(record.headers)["x"]) for record in letters] == [(b"strange", b"2")] * 2
    assert await committed_to(orders, 6)
    assert len(orders.notes("begin")) == 4


async def test_plain_record_is_an_event_of_its_topic(make_orders: MakeOrders) -> None:
    """Type is the topic, id the position; what no handler takes may be ignored."""
    orders = await make_orders()
    async with producer(orders.server) as made:
        await made.send_and_wait(orders.topic, b"no event at all")
        await made.send_and_wait(orders.topic, order(1), headers=attributes())
    async with orders.function(EVENTS_UNKNOWN="ignore"):
        await orders.all_handled([1])
    assert (await orders.committed())[0][0] == 2


async def test_def_handler_runs_in_a_thread(make_orders: MakeOrders) -> None:
    """Several at a time."""
    orders = await make_orders()
    await send(orders, [(f"k{n}", order(n, seconds=0.3)) for n in range(6)], "order.threaded")
    async with orders.function():
        await orders.all_handled(range(6))
    ends = [note.at for note in orders.notes("end")]
    assert max(ends) - min(ends) < 1.0


async def test_batches_gather_what_comes_together(make_orders: MakeOrders) -> None:
    """Full ones at once, the last one after its wait; all are settled."""
    orders = await make_orders(2)
    await send(orders, [(f"k{n}", order(n)) for n in range(12)], "order.counted")
    async with orders.function(BATCHES, EVENTS_LANES="2") as function:
        await eventually(lambda: len(orders.notes()) == 12, "all handled")
        assert function.stop() == 0
    sizes = sorted(note.what for note in orders.notes())
    assert sizes == ["batch-of-2"] * 2 + ["batch-of-5"] * 10
    assert sum(offset for offset, _ in (await orders.committed()).values()) == 12


async def test_first_assignment_commits_where_it_begins(make_orders: MakeOrders) -> None:
    """KEDA tells the lag of a group by what it has committed, also before anything came."""
    orders = await make_orders(3)
    async with orders.function() as function:
        await function.log_line("given 3 partitions")
        offsets = await orders.committed()
    assert {partition: offset for partition, (offset, _) in offsets.items()} == {0: 0, 1: 0, 2: 0}


async def test_markers_of_transactions_leave_no_lag(make_orders: MakeOrders) -> None:
    """What is committed is the position behind them, and of what was aborted nothing is handled."""
    orders = await make_orders()
    async with producer(orders.server, transactional_id=new_name("t")) as made:
        for number in (1, 2):
            await made.begin_transaction()
            await made.send(orders.topic, order(number), key=b"k", headers=attributes())
            await (made.commit_transaction if number == 1 else made.abort_transaction)()
    async with orders.function() as function:
        await orders.all_handled([1])
        assert await committed_to(orders, 4)
        assert set((await series(function, "faas_event_lag_messages")).values()) == {0.0}
    assert orders.handled() == {1}


async def test_metrics_tell_lag_and_lanes(make_orders: MakeOrders) -> None:
    """By partition, as long as it is assigned."""
    orders = await make_orders()
    await send(orders, [(f"k{n}", order(n, seconds=30)) for n in range(5)])
    async with orders.function(EVENTS_LANES="2", write_timeout="1s") as function:
        await function.log_line("given 1 partitions")
        await eventually(lambda: len(orders.notes("begin")) == 2, "begun")
        labels = f'{{destination="{orders.topic}",partition="0"}}'
        assert await series(function, "faas_event_lanes_in_use") == {f"faas_event_lanes_in_use{labels}": 2.0}
        assert await series(function, "faas_event_lag_messages") == {f"faas_event_lag_messages{labels}": 5.0}
        assert 0 < (await series(function, "faas_event_lag_seconds"))[f"faas_event_lag_seconds{labels}"] < 60


async def test_metadata_that_is_garbage_costs_repeats_only(make_orders: MakeOrders) -> None:
    """Nothing is known then beside the offset; the log says so once."""
    orders = await make_orders()
    await send(orders, [(f"k{n}", order(n)) for n in range(4)])
    from aiokafka import AIOKafkaConsumer
    from aiokafka.structs import TopicPartition

    place = TopicPartition(orders.topic, 0)
    other = AIOKafkaConsumer(bootstrap_servers=orders.server.bootstrap, group_id=orders.group, enable_auto_commit=False)
    await other.start()
    other.assign([place])
    await other.commit({place: (1, "fb1.\u00fcnreadable" + "A" * 2000)})
    await other.stop()
    async with orders.function() as function:
        await orders.all_handled([1, 2, 3])
        await function.log_line("tells nothing")
    assert orders.handled() == {1, 2, 3}

"""Dead letters of Kafka's records, from the record to the redrive."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.brokers.kafka import KafkaServer
from faasbase.events.dead_letters import read_letter
from tests.kafka_orders import attributes, eventually, order, orders_of, producer, read_all, send
from tests.letter_places import command
from tests.servers_kafka import MakeTopic

pytestmark = pytest.mark.anyio


async def test_tombstone_is_one_again_after_its_redrive(
    kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """On a compacted topic an empty content would bring its key back to life."""
    orders = orders_of(kafka, await make_topic(1), tmp_path)
    headers = [*attributes("order.unheard"), ("none", None), ("empty", b"")]
    async with producer(kafka) as made:
        await made.send_and_wait(orders.topic, None, key=b"gone", headers=headers)
    async with orders.function():
        await orders.letters(1)
    redriven = await command(None, "redrive", EVENTS_URL=orders.url())
    assert redriven.status == 0, redriven.errors
    first, second = await read_all(kafka, orders.topic, 2)
    assert (second.key, second.value) == (b"gone", None)
    assert second.headers[: len(headers)] == first.headers == tuple(headers)


async def test_record_that_is_too_large_for_the_letters_stops_nothing(
    kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """It is known where it lies, and how large it was."""
    orders = orders_of(kafka, await make_topic(1), tmp_path)
    await kafka.create_topic(f"{orders.group}.dead-letters", 1, {"max.message.bytes": "20000"})
    large = order(0, reject=True, padding="x" * 30_000)
    await send(orders, [("k", large), ("k", order(1, reject=True)), ("k", order(2))])
    async with orders.function() as function:
        await orders.all_handled([2])
        letters = [read_letter(one.value or b"", one.headers) for one in await orders.letters(2)]
        await eventually(lambda: "cannot be kept, waiting" in function.output(), "told")
    cut, whole = letters
    assert (cut.position, cut.content, cut.truncated) == (f"{orders.topic}/0/0", b"", len(large))
    assert (whole.content, whole.truncated) == (order(1, reject=True), None)

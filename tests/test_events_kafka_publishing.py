"""Events that handlers send to Kafka."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.brokers.kafka import KafkaServer
from faasbase.events.dead_letters import dead_letter
from faasbase.events.kafka import open_dead_letters
from faasbase.events.outcomes import Outcome
from faasbase.events.records import Record
from faasbase.settings import load_settings
from tests.kafka_orders import attributes, order, orders_of, producer, read_all, send
from tests.servers_kafka import MakeTopic, new_name

pytestmark = pytest.mark.anyio


async def test_published_event_has_key_trace_and_derived_id(
    kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """To the topic of ``PUBLISH_URL`` or another one; a repeat sends the same id."""
    orders, target = orders_of(kafka, await make_topic(1), tmp_path), await make_topic(3)
    trace = "00-" + "ab" * 16 + "-" + "cd" * 8 + "-01"
    async with producer(orders.server) as made:
        for _ in range(2):
            headers = [*attributes(event_id="e-1"), ("traceparent", trace.encode())]
            await made.send_and_wait(orders.topic, order(1, publish=target), key=b"k", headers=headers)
    async with orders.function(PUBLISH_URL=f"{orders.server.url}/{target}"):
        first, second = await read_all(orders.server, target, 2)
    told = dict(first.headers)
    assert (first.key, first.value, told["ce_type"]) == (b"k", b'{"n":1}', b"order.fulfilled")
    assert (told["traceparent"] or b"").split(b"-")[1] == b"ab" * 16
    assert told["ce_id"] == dict(second.headers)["ce_id"] != b"e-1"


async def test_topic_that_is_not_there_is_not_made_by_publishing(
    kafka: KafkaServer, make_topic: MakeTopic, tmp_path: Path
) -> None:
    """The event is tried again, and becomes a dead letter in the end."""
    orders = orders_of(kafka, await make_topic(1), tmp_path)
    await send(orders, [("k", order(1, publish="no-such-topic"))])
    async with orders.function(PUBLISH_URL=f"{orders.server.url}/{orders.topic}", EVENTS_MAX_ATTEMPTS="2"):
        (letter,) = await orders.letters(1)
    assert dict(letter.headers)["deadletter-error"] == b"PublishError"
    assert "no-such-topic" not in orders.server.tool("org.apache.kafka.tools.TopicCommand", "--list")


async def test_letters_of_others_are_kept_in_the_topic_of_their_url(kafka: KafkaServer) -> None:
    """Whoever has no topics of its own, as a function that is pushed its events, may keep its letters in one."""
    topic, record = new_name("letters"), Record("http", "order.created", "", 0, b"{", {})
    settings = load_settings({"OPENFAAS_NAME": "shop"})
    keeper = open_dead_letters(f"{kafka.url}/{topic}", settings)
    await keeper.open()
    letter = dead_letter(record, Outcome("rejected", "it is no JSON", "MalformedError"), "shop", position="/shop#e-1")
    try:
        await keeper.send(letter)
    finally:
        await keeper.close()
    (kept,) = await read_all(kafka, topic, 1)
    assert (kept.key, kept.value) == (letter.id.encode(), b"{")
    assert dict(kept.headers)["deadletter-error"] == b"MalformedError"

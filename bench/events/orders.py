"""What is sent: orders as CloudEvents in binary mode, each with a trace, one in ten of them sampled."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator

from aiokafka import AIOKafkaProducer
from pydantic import BaseModel

from deploy.brokers.kafka import KafkaServer

PARTITIONS = 12
TYPE = "order.created"
_KEYS = 1000
_SAMPLED = 0.1


class Order(BaseModel):
    """An order of some lines."""

    id: int
    customer: str
    item: str
    quantity: int
    paid: bool


def messages(count: int) -> Iterator[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
    """Yield key, content and headers of *count* orders."""
    chance = random.Random(11)  # noqa: S311 - the same ones in each run
    for number in range(count):
        customer = f"customer-{number % _KEYS}"
        order = Order(id=number, customer=customer, item=f"item-{number % 97}", quantity=number % 9 + 1, paid=True)
        sampled = "01" if chance.random() < _SAMPLED else "00"
        trace = f"00-{chance.getrandbits(128):032x}-{chance.getrandbits(64):016x}-{sampled}"
        told = {
            "ce_specversion": "1.0",
            "ce_id": f"order-{number}",
            "ce_source": "/function/order-intake",
            "ce_type": TYPE,
            "ce_time": "2026-05-01T10:00:00.000000+00:00",
            "content-type": "application/json",
            "traceparent": trace,
        }
        headers = [(name, value.encode()) for name, value in told.items()]
        yield customer.encode(), json.dumps(order.model_dump()).encode(), headers


async def fill(server: KafkaServer, topic: str, count: int) -> None:
    """Make *topic* and send *count* orders to it."""
    await server.create_topic(topic, PARTITIONS)
    producer = AIOKafkaProducer(bootstrap_servers=server.bootstrap, linger_ms=20, max_batch_size=256 * 1024)
    await producer.start()
    try:
        sent = [
            await producer.send(topic, content, key=key, headers=headers) for key, content, headers in messages(count)
        ]
        await asyncio.gather(*sent)
    finally:
        await producer.stop()

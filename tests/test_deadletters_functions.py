"""From a function that gives an event up to one that handles it: its dead letter, put back from the command line."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from nats.js.api import StreamConfig

from deploy.brokers.kafka import KafkaServer
from deploy.brokers.nats import NatsServer
from tests.kafka_orders import eventually
from tests.letter_places import command, streams_of
from tests.processes import run_function
from tests.servers_kafka import new_name

pytestmark = pytest.mark.anyio

HANDLER = """
import os
from pathlib import Path

from faasbase import Event, Reject, current_delivery, on_event

stock, journal = Path(os.environ["STOCK"]), Path(os.environ["JOURNAL"])


@on_event("order.created")
async def fulfil(event: Event[dict]) -> None:
    if not stock.exists():
        raise Reject("the shelf is empty")
    key = (current_delivery().key or b"-").decode()
    journal.write_text(f"{event.id} {event.data['item']} {key}")
"""
ATTRIBUTES = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "order.created"}
ORDER = b'{"item": "tea"}'
SECONDS = 20.0


async def letter_at(url: str) -> dict[str, Any]:
    """Return the letter once there is one; until the function has started, there is no place for any."""
    for _ in range(40):
        if found := (await command(None, "list", "--json", EVENTS_URL=url)).documents:
            return found[0]
        await asyncio.sleep(0.1)
    raise AssertionError("nothing was given up")


async def brought_back(url: str, folder: Path, key: str) -> None:
    """Run a function that rejects the order at *url*, mend what is wrong, and have it handled by a redrive."""
    stock, journal = folder / "stock", folder / "journal"
    async with run_function(HANDLER, EVENTS_URL=url, STOCK=str(stock), JOURNAL=str(journal)):
        letter = await letter_at(url)
        assert (letter["error"], letter["reason"], letter["redrives"]) == ("Reject", "the shelf is empty", 0)
        assert (await command(None, "redrive", EVENTS_URL=url)).status == 0
        again = await letter_at(url)
        assert (again["redrives"], again["id"] == letter["id"]) == (1, False)
        stock.touch()
        assert (await command(None, "redrive", EVENTS_URL=url)).status == 0
        await eventually(lambda: journal.exists() and bool(journal.read_text()), "handled", SECONDS)
        assert journal.read_text() == f"e-1 tea {key}"
        assert (await command(None, "list", EVENTS_URL=url)).lines == []


async def test_order_from_kafka_is_brought_back(kafka: KafkaServer, tmp_path: Path) -> None:
    topic = new_name("orders")
    await kafka.create_topic(topic, 2)
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap)
    await producer.start()
    headers = [(f"ce_{name}", value.encode()) for name, value in ATTRIBUTES.items()]
    await producer.send_and_wait(topic, ORDER, key=b"k-1", headers=[*headers, ("content-type", b"application/json")])
    await producer.stop()
    await brought_back(f"{kafka.url}/{topic}?group={new_name('worker')}", tmp_path, "k-1")


async def test_order_from_nats_is_brought_back(nats_server: NatsServer, tmp_path: Path) -> None:
    stream = new_name("orders")
    async with streams_of(nats_server) as streams:
        await streams.add_stream(StreamConfig(name=stream, subjects=[f"{stream}.>"]))
        headers = {f"ce-{name}": value for name, value in ATTRIBUTES.items()}
        await streams.publish(f"{stream}.new", ORDER, headers={**headers, "content-type": "application/json"})
    await brought_back(f"{nats_server.url}/{stream}?durable={new_name('worker')}", tmp_path, "-")

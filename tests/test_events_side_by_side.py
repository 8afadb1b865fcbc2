"""Handlers of lists beside those of single events, and handlers that refuse to end."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from typing import Any

import httpx2
import pytest

from faasbase import Event, on_event
from faasbase.event_policy import EventsPolicy
from faasbase.events import batching, deadlines
from faasbase.events.handlers import event_handlers
from faasbase.events.http.app import EventsApp
from faasbase.events.memory import open_source
from faasbase.events.memory_broker import memory_broker
from faasbase.events.processing import Processor
from faasbase.settings import Settings
from tests.event_delivery import Order, deliver, module_of, processor_of

pytestmark = pytest.mark.anyio


@on_event("clicks", batch_size=50, batch_wait=0.05)
async def count(events: list[Event[Any]]) -> None:
    """Take lists."""


@pytest.mark.parametrize("lanes", [1, 3])
async def test_lanes_bound_single_events_beside_a_handler_of_lists(lanes: int) -> None:
    """In the order of their delivery."""
    seen: list[int] = []
    running = most = 0

    @on_event("orders")
    async def take(event: Event[Order]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.005)
        seen.append(event.data.id)
        running -= 1

    processor = processor_of(take, count, lanes=lanes)
    await asyncio.gather(*(deliver(processor, json.dumps({"id": n}).encode()) for n in range(20)))
    assert most == lanes
    assert seen == list(range(20))


async def test_lists_are_filled_beyond_the_lanes() -> None:
    """Lanes are for single events."""
    sizes: list[int] = []

    @on_event("orders", batch_size=10, batch_wait=2)
    async def take(events: list[Event[Order]]) -> None:
        sizes.append(len(events))

    processor = processor_of(take, lanes=2)
    await asyncio.gather(*(deliver(processor) for _ in range(20)))
    assert sizes == [10, 10]


async def test_each_partition_has_lanes_of_its_own() -> None:
    """As `EVENTS_LANES` has it on Kafka."""
    running = most = 0

    @on_event("orders")
    async def take(event: Event[Order]) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1

    processor = processor_of(take, count, lanes=2)
    await asyncio.gather(*(deliver(processor, position=f"orders/{n % 3}/{n}") for n in range(12)))
    assert most == 6


async def test_one_lane_keeps_the_order_of_a_topic_beside_a_handler_of_lists() -> None:
    """Without keys, too."""
    seen: list[int] = []
    done = asyncio.Event()

    @on_event("orders")
    async def take(event: Event[int]) -> None:
        await asyncio.sleep(0.02 if event.data == 0 else 0)
        seen.append(event.data)
        if len(seen) == 10:
            done.set()

    settings = Settings(events=EventsPolicy(urls=("memory://orders",), lanes=1))
    source = open_source("memory://orders", settings, Processor(event_handlers(module_of(take, count)), lanes=1))
    await source.start()
    running = asyncio.create_task(source.run())
    for number in range(10):
        memory_broker().write("orders", str(number).encode(), {}, None)
    await asyncio.wait_for(done.wait(), 5)
    await source.drain(1.0)
    await running
    assert seen == list(range(10))


async def test_batch_that_refuses_to_end_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its handler is named."""
    monkeypatch.setattr(batching, "CANCEL_SECONDS", 0.1)
    over = asyncio.Event()

    @on_event("orders", batch_size=1)
    async def stubborn(events: list[Event[Order]]) -> None:
        while not over.is_set():
            with suppress(asyncio.CancelledError):
                await over.wait()

    processor = processor_of(stubborn)
    delivery = asyncio.create_task(deliver(processor))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    await processor.close()
    assert time.monotonic() - began < 2
    assert "stubborn was cancelled and has not ended within 0.1 s" in caplog.text
    over.set()
    assert (await delivery).kind == "settled"


async def test_handler_that_swallows_the_end_of_its_time_is_told_it_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And the log names it; what it has swallowed is not left on the task."""
    monkeypatch.setattr(deadlines, "_CLEAN_UP_SECONDS", 0.1)

    @on_event("orders")
    async def deaf(event: Event[Order]) -> None:
        for _ in range(2):
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                continue
        await asyncio.sleep(30)

    outcome = await deliver(processor_of(deaf, timeout_seconds=0.1))
    assert (outcome.kind, outcome.error) == ("failed", "TimeoutError")
    assert caplog.text.count("deaf has not ended 0 s after its time was over and it was cancelled") == 2
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_events_that_wait_for_a_batch_are_not_compared() -> None:
    """Their data may refuse that."""

    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ValueError("the truth of it is ambiguous")

        __hash__ = None  # type: ignore[assignment]

    @on_event("orders", batch_size=3, decode=lambda content: Odd())
    async def take(events: list[Event[Any]]) -> None: ...

    processor = processor_of(take)
    outcomes = await asyncio.gather(*(deliver(processor) for _ in range(3)))
    assert [outcome.kind for outcome in outcomes] == ["settled"] * 3
    leaving = [asyncio.create_task(deliver(processor)) for _ in range(2)]
    await asyncio.sleep(0.02)
    leaving[1].cancel()
    assert isinstance((await asyncio.gather(*leaving, return_exceptions=True))[1], asyncio.CancelledError)


async def test_pushed_batch_has_its_single_events_in_lanes_beside_a_handler_of_lists() -> None:
    """One lane keeps their order."""
    seen: list[int] = []
    sizes: list[int] = []

    @on_event("orders")
    async def take(event: Event[int]) -> None:
        await asyncio.sleep(0.02 if event.data == 0 else 0)
        seen.append(event.data)

    @on_event("clicks", batch_size=5, batch_wait=2)
    async def count_pushed(events: list[Event[int]]) -> None:
        sizes.append(len(events))

    settings = Settings(events=EventsPolicy(http_public=True, lanes=1))
    app = EventsApp(event_handlers(module_of(take, count_pushed)), settings)
    events = [
        {"specversion": "1.0", "id": str(n), "source": "/x", "type": kind, "data": n}
        for n in range(10)
        for kind in ("orders", "clicks")
    ]
    headers = {"content-type": "application/cloudevents-batch+json"}
    async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://function") as client:
        answer = await client.post("/", content=json.dumps(events), headers=headers)
    assert answer.status_code == 204, answer.text
    assert (seen, sizes) == (list(range(10)), [5, 5])

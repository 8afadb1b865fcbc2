"""Handlers that are plain functions: how many threads they have, when their time begins, and what outlasts it."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator

import pytest

from faasbase import Event, on_event
from faasbase.events import processing, threads
from faasbase.events.outcomes import Outcome
from tests.event_delivery import Order, deliver, processor_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Return what handlers wait for, set at the end: no thread outlives its test."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processors have two threads for their handlers."""
    monkeypatch.setattr(processing, "_FEWEST_THREADS", 2)


@pytest.mark.usefixtures("two_threads")
async def test_handler_that_hangs_gets_no_more_threads_than_there_are(release: threading.Event) -> None:
    """However often it is tried; once it ends, the next run begins."""
    begun: list[int] = []

    @on_event("orders")
    def take(event: Event[Order]) -> None:
        begun.append(event.data.id)
        release.wait(30)

    processor = processor_of(take, timeout_seconds=0.1)
    outcomes = await asyncio.gather(*(deliver(processor) for _ in range(2)))
    assert [outcome.error for outcome in outcomes] == ["TimeoutError"] * 2
    waiting = [asyncio.create_task(deliver(processor)) for _ in range(3)]
    await asyncio.sleep(0.3)
    assert (len(begun), [task.done() for task in waiting]) == (2, [False] * 3)
    release.set()
    assert [outcome.kind for outcome in await asyncio.gather(*waiting)] == ["settled"] * 3


@pytest.mark.usefixtures("two_threads")
async def test_time_begins_when_there_is_a_thread() -> None:
    """Waiting for one is nobody's failure, and spends no attempt."""

    @on_event("orders")
    def take(event: Event[Order]) -> None:
        time.sleep(0.2)

    processor = processor_of(take, timeout_seconds=0.5)
    outcomes = await asyncio.gather(*(deliver(processor) for _ in range(8)))
    assert [outcome.kind for outcome in outcomes] == ["settled"] * 8


@pytest.mark.usefixtures("two_threads")
async def test_run_that_is_given_up_before_its_thread_begins_leaves_it_to_others(release: threading.Event) -> None:
    """Neither those who wait nor those who have just been let in are handled behind their deliverer's back."""
    begun: list[int] = []

    @on_event("orders")
    def take(event: Event[Order]) -> None:
        begun.append(event.data.id)

    processor = processor_of(take, timeout_seconds=5)
    for _ in range(5):
        tasks = [asyncio.create_task(deliver(processor)) for _ in range(4)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    before = len(begun)
    assert (await asyncio.wait_for(deliver(processor), 2)).kind == "settled"
    assert len(begun) == before + 1


@pytest.mark.usefixtures("two_threads")
async def test_waiting_for_a_thread_is_told_with_the_names_of_those_that_hang(
    release: threading.Event, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else nobody could tell why nothing goes on."""
    monkeypatch.setattr(threads, "_TELL_SECONDS", 0.1)

    @on_event("orders")
    def hangs(event: Event[Order]) -> None:
        release.wait(30)

    processor = processor_of(hangs, timeout_seconds=0.1)
    await asyncio.gather(*(deliver(processor) for _ in range(2)))
    waiting = asyncio.create_task(deliver(processor))
    await asyncio.sleep(0.3)
    assert (
        "1 runs wait for one of the 2 threads of handlers; past their time, and still in one: hangs (2)" in caplog.text
    )
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.usefixtures("two_threads")
async def test_def_that_takes_batches_has_the_same_threads(release: threading.Event) -> None:
    """Its time begins with its thread as well."""

    @on_event("orders", batch_size=1)
    def take(events: list[Event[Order]]) -> None:
        time.sleep(0.2)

    processor = processor_of(take, timeout_seconds=0.5)
    outcomes: list[Outcome] = await asyncio.gather(*(deliver(processor) for _ in range(8)))
    assert [outcome.kind for outcome in outcomes] == ["settled"] * 8

"""Gathers events that come one by one into the lists that a handler of batches takes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from opentelemetry import trace
from opentelemetry.trace import Span

from .envelope import Event
from .handlers import EventHandler
from .lanes import CANCEL_SECONDS
from .outcomes import Outcome, logger
from .records import Record


@dataclass(slots=True)
class Batch:
    """Events to be handled in one call, the first one's record, and the spans of all."""

    events: list[Event[Any]]
    first: Record
    spans: list[Span]


Run = Callable[[EventHandler, Batch], Awaitable[list[Outcome]]]


@dataclass(slots=True, eq=False)
class _Waiting:
    event: Event[Any]
    record: Record
    span: Span
    outcome: asyncio.Future[Outcome]
    task: asyncio.Task[None] | None = None
    """What handles its batch, once that has begun."""


class Batches:
    """
    The batches of one handler: full at its size, or when its first event has waited long enough.

    Whoever adds an event waits for its outcome; giving up takes the event out of a batch that has not begun.
    """

    def __init__(self, handler: EventHandler, run: Run) -> None:
        self._handler, self._run = handler, run
        self._waiting: list[_Waiting] = []
        self._timer: asyncio.TimerHandle | None = None
        self._running: dict[asyncio.Task[None], list[_Waiting]] = {}

    async def add(self, event: Event[Any], record: Record) -> Outcome:
        """Put *event* into the next batch and return its outcome."""
        loop = asyncio.get_running_loop()
        waiting = _Waiting(event, record, trace.get_current_span(), loop.create_future())
        self._waiting.append(waiting)
        if len(self._waiting) >= self._handler.batch_size:
            self._begin()
        elif self._timer is None:
            self._timer = loop.call_later(self._handler.batch_seconds, self._begin)
        try:
            return await waiting.outcome
        finally:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            elif waiting.task is not None and not waiting.task.done():
                self._end_unwanted(waiting.task)

    async def close(self) -> None:
        """Cancel the batches being handled and wait for their end, though not for one that refuses it."""
        if self._timer is not None:
            self._timer.cancel()
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            _, late = await asyncio.wait(running, timeout=CANCEL_SECONDS)
            if late:
                logger.error("%s was cancelled and has not ended within %g s", self._handler.name, CANCEL_SECONDS)

    def _end_unwanted(self, task: asyncio.Task[None]) -> None:
        """Cancel a batch that all have given up who were waiting for it."""
        if all(waiting.outcome.done() for waiting in self._running[task]):
            task.cancel()

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._waiting = self._waiting, []
        if batch:
            task = asyncio.get_running_loop().create_task(self._handle(batch), name=f"batch {self._handler.name}")
            self._running[task] = batch
            for one in batch:
                one.task = task
            task.add_done_callback(self._running.pop)

    async def _handle(self, batch: list[_Waiting]) -> None:
        try:
            events, spans = [one.event for one in batch], [one.span for one in batch]
            outcomes = await self._run(self._handler, Batch(events, batch[0].record, spans))
        except asyncio.CancelledError:
            for one in batch:
                one.outcome.cancel()
            raise
        for one, outcome in zip(batch, outcomes, strict=True):
            if not one.outcome.done():
                one.outcome.set_result(outcome)

"""From a message to an outcome: decode it, find its handler, validate it, run the handler within its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Coroutine, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ..context import current_call
from ..errors import FieldError, Problem
from .batching import Batch, Batches
from .deadlines import Deadlines, rest_of
from .envelope import Envelope, Event, MalformedError, Parcel, read_envelope
from .handlers import EventHandler
from .outcomes import IGNORED, SETTLED, Outcome, invalid, logger, malformed, outcome_of
from .reading import EventReader
from .records import Record, Running
from .single_lanes import SingleLanes
from .tally import TALLY
from .telemetry import BatchSpan, process_span
from .texts import shown
from .threads import HandlerThreads

_FEWEST_THREADS = 100


@dataclass(frozen=True, slots=True)
class _Known:
    handler: EventHandler
    reader: EventReader
    batches: Batches | None


class Processor:
    """
    Runs the handlers of a function for whatever its transports bring.

    A run takes *timeout_seconds* at most (0 is no limit): then it is cancelled and has failed; a `def` cannot be, and
    goes on in its thread.  *ignore_unknown* settles events that no handler takes, instead of giving them up.  Where
    some wait for their batch, *lanes* bounds how many single ones run at a time all the same; 0 is no bound.
    """

    def __init__(
        self,
        handlers: Sequence[EventHandler],
        *,
        timeout_seconds: float = 0.0,
        ignore_unknown: bool = False,
        propagated: tuple[str, ...] = (),
        lanes: int = 0,
    ) -> None:
        self._timeout_seconds, self._ignore_unknown, self._propagated = timeout_seconds, ignore_unknown, propagated
        self._deadlines = Deadlines()
        # Twice as many, so that those which are left to themselves do not stop the others.
        self._threads = HandlerThreads(max(_FEWEST_THREADS, 2 * lanes))
        self._known = {
            kind: known for handler in handlers for known in [self._make_known(handler)] for kind in handler.types
        }
        self._lanes = SingleLanes(lanes) if 0 < lanes < self.largest_batch else None

    @property
    def largest_batch(self) -> int:
        """How many events the handlers take in one call at most; 0 where none takes batches."""
        return max((known.handler.batch_size for known in self._known.values()), default=0)

    @property
    def takes_single(self) -> bool:
        """Whether a handler takes single events."""
        return any(not known.handler.batch_size for known in self._known.values())

    def gathers(self, event_type: str) -> bool:
        """Tell whether events of *event_type* wait for their batch."""
        return (known := self._known.get(event_type)) is not None and known.batches is not None

    def takes(self, event_type: str) -> bool:
        """Tell whether a handler takes events of *event_type*."""
        return event_type in self._known

    def process(self, record: Record, came: Parcel | Envelope) -> Coroutine[Any, Any, Outcome]:
        """
        Decode *record*, which *came* as that, run its handler, and return what became of it; never raises.

        Cancelling it cancels the handler.
        """
        if isinstance(came, Envelope):
            return self.process_envelope(record, came)
        try:
            envelope, outcome = read_envelope(came), SETTLED
        except MalformedError as exc:
            envelope, outcome = Envelope({}), malformed(exc, record.position)
        return self.process_envelope(record, envelope, outcome)

    async def process_envelope(self, record: Record, envelope: Envelope, outcome: Outcome = SETTLED) -> Outcome:
        """Do as `process` with an *envelope* that is read already; an *outcome* that is dead stands."""
        began = time.monotonic()
        kind = envelope.type
        known = self._known.get(kind)
        counted_as = kind if known is not None else "unknown"
        if (span := process_span(record, envelope)) is None:
            if not outcome.dead:
                outcome = await self._handled(record, envelope, known, began)
            TALLY.add(counted_as, outcome.kind, time.monotonic() - began)
            return outcome
        with span:
            if not outcome.dead:
                outcome = await self._handled(record, envelope, known, began)
            TALLY.add(counted_as, outcome.kind, time.monotonic() - began, span.end(outcome))
        return outcome

    async def _handled(self, record: Record, envelope: Envelope, known: _Known | None, began: float) -> Outcome:
        if known is None:
            return self._unknown(envelope, record)
        try:
            event = known.reader.read(envelope)
        except MalformedError as exc:
            return malformed(exc, record.position)
        except ValidationError as exc:
            return invalid(exc, record.position)
        except Exception as exc:  # noqa: BLE001 - what validates and decodes is the handler's own as well
            return outcome_of(exc, str(envelope.attributes.get("id")), known.handler.name)
        handler = known.handler
        try:
            if known.batches is not None:
                return await known.batches.add(event, record)
            if self._lanes is not None or not handler.is_async:
                return await self._in_turn(handler, event, record)
            await self._call(handler, event, self._running(record, began, event), self._until(began))
        except Exception as exc:  # noqa: BLE001 - the border: what the handler raises is what becomes of the event
            return outcome_of(exc, event.id, handler.name)
        except asyncio.CancelledError as exc:
            if _is_cancelled():
                raise
            return outcome_of(exc, event.id, handler.name)
        return SETTLED

    async def _in_turn(self, handler: EventHandler, event: Event[Any], record: Record) -> Outcome:
        """Call the handler once there is a lane and a thread for it; its time begins then."""
        async with self._lanes.of(record) if self._lanes is not None else nullcontext():
            if not handler.is_async:
                await self._threads.take()
            began = time.monotonic()
            await self._call(handler, event, self._running(record, began, event), self._until(began))
        return SETTLED

    async def _call(self, handler: EventHandler, argument: Any, running: Running, until: float | None) -> Any:
        """Call the handler, which is cancelled at *until*; raises TimeoutError then."""
        running.enter()
        called = handler.function(argument) if handler.is_async else self._threads.run(handler, argument)
        try:
            waits_for = called.send(None)
        except StopIteration as done:
            # What waits for nothing cannot be cancelled either.
            return done.value
        rest = rest_of(called, waits_for)
        return await (rest if until is None else self._bounded(handler, rest, until))

    async def _bounded(self, handler: EventHandler, rest: Awaitable[Any], until: float) -> Any:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a coroutine runs in a task
        self._deadlines.enter(task, until, handler.name)
        try:
            return await rest
        except asyncio.CancelledError:
            if self._deadlines.leave(task) and not task.cancelling():
                raise TimeoutError(f"{handler.name} did not end in time") from None
            raise
        finally:
            # The handler may have swallowed the cancelling, and returned all the same.
            self._deadlines.leave(task)

    async def _run_batch(self, handler: EventHandler, batch: Batch) -> list[Outcome]:
        events = batch.events
        if not handler.is_async:
            await self._threads.take()
        running = self._running(batch.first, time.monotonic())
        try:
            with BatchSpan(handler.name, batch.spans):
                # Nobody but us ends a batch whose calls have given up.
                said = await self._call(handler, events, running, running.deadline)
        except (Exception, asyncio.CancelledError) as exc:
            if isinstance(exc, asyncio.CancelledError) and _is_cancelled():
                raise
            told = f"{shown(events[0].id)[:100]} and {len(events) - 1} others"
            return [outcome_of(exc, told, handler.name)] * len(events)
        return _each(said, events, handler)

    def _until(self, began: float) -> float | None:
        return began + self._timeout_seconds if self._timeout_seconds else None

    def _running(self, record: Record, began: float, event: Event[Any] | None = None) -> Running:
        deadline = self._until(began)
        if record.system == "http" and (call := current_call()) is not None and call.deadline is not None:
            deadline = call.deadline if deadline is None else min(deadline, call.deadline)
        return Running(record, deadline, self._propagated, event)

    def _make_known(self, handler: EventHandler) -> _Known:
        batches = Batches(handler, self._run_batch) if handler.batch_size else None
        return _Known(handler, EventReader(handler), batches)

    def _unknown(self, envelope: Envelope, record: Record) -> Outcome:
        if self._ignore_unknown:
            return IGNORED
        kind = f'type "{shown(envelope.type)}"' if envelope.type else "no type"
        said = f"no handler takes events of {kind}; known: {', '.join(sorted(self._known))}"
        logger.warning("event at %s: %s", record.position or "its sender's", said)
        error = FieldError("type", "unknown type" if envelope.type else "is missing")
        problem = Problem(422, shown(said, 1000), errors=[error])
        return Outcome("unknown", problem.detail, "UnknownType", problem=problem)

    async def close(self) -> None:
        """End what batches still wait for."""
        for known in self._known.values():
            if known.batches is not None:
                await known.batches.close()


def _is_cancelled() -> bool:
    """Tell whether somebody wants this task to end: a handler may as well await what was cancelled elsewhere."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _each(said: Any, events: Sequence[Event[Any]], handler: EventHandler) -> list[Outcome]:
    """Read what a batch's handler has returned."""
    if said is None:
        return [SETTLED] * len(events)
    fits = isinstance(said, list | tuple) and len(said) == len(events)
    if not fits or not all(one is None or isinstance(one, Exception) for one in said):
        exc = TypeError(f"{handler.name} must return None, or a list with None, Retry or Reject for each event")
        return [outcome_of(exc, events[0].id, handler.name)] * len(events)
    return [
        SETTLED if one is None else outcome_of(one, event.id, handler.name)
        for one, event in zip(said, events, strict=True)
    ]

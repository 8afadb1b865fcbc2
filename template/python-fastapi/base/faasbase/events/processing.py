"""From a message to an outcome: decode it, find its handler, validate it, run the handler within its time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Coroutine, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ..context import current_call, enter_call
from ..errors import FieldError, Problem
from .batching import Batch, Batches
from .border import bordered, each_outcome, is_cancelled, outcome_at_border
from .deadlines import Deadlines, rest_of
from .envelope import Envelope, Event, MalformedError, Parcel, read_envelope
from .handlers import EventHandler
from .outcomes import IGNORED, SETTLED, Outcome, invalid, logger, malformed, outcome_of
from .reading import EventReader
from .records import Record, Running
from .single_lanes import SingleLanes
from .tally import TALLY
from .telemetry import BatchSpan, ProcessSpan, process_span
from .texts import shown
from .threads import HandlerThreads

Begun = Outcome | Coroutine[Any, Any, Outcome]
"""What has become of an event whose handling has begun, or what is left to await: most handlers' first step is all."""
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

    async def process(self, record: Record, came: Parcel | Envelope, outcome: Outcome = SETTLED) -> Outcome:
        """
        Decode *record*, which *came* as that, run its handler, and return what became of it; never raises.

        Cancelling it cancels the handler.  An *outcome* that is there already stands.
        """
        begun = self.begin(record, came, outcome)
        return begun if isinstance(begun, Outcome) else await begun

    def begin(self, record: Record, came: Parcel | Envelope, outcome: Outcome = SETTLED) -> Begun:
        """Do at once what `process` does until the handler waits for something; cancelled there, this is, too."""
        if isinstance(came, Envelope):
            envelope = came
        else:
            try:
                envelope = read_envelope(came)
            except MalformedError as exc:
                envelope, outcome = Envelope({}), malformed(exc, record.position)
        began = time.monotonic()
        kind = envelope.attributes.get("type", "")
        known = self._known.get(kind)
        counted_as = kind if known is not None else "unknown"
        span = process_span(record, envelope)
        try:
            begun = self._handle(record, envelope, known, began) if outcome is SETTLED else outcome
        except BaseException as exc:
            if span is not None:
                span.fail(exc)
            raise
        if not isinstance(begun, Outcome):
            return _counted(begun, counted_as, began, span)
        TALLY.add(counted_as, begun.kind, time.monotonic() - began, None if span is None else span.end(begun))
        return begun

    def _handle(self, record: Record, envelope: Envelope, known: _Known | None, began: float) -> Begun:
        """Read the event and begin to handle it."""
        if known is None:
            return self._unknown(envelope, record)
        handler = known.handler
        try:
            event = known.reader.read(envelope)
        except MalformedError as exc:
            return malformed(exc, record.position)
        except ValidationError as exc:
            return invalid(exc, record.position)
        except Exception as exc:  # noqa: BLE001 - what validates and decodes is the handler's own as well
            return outcome_of(exc, str(envelope.attributes.get("id")), handler.name)
        if known.batches is not None:
            return bordered(known.batches.add(event, record), event, handler)
        if self._lanes is not None or not handler.is_async:
            return bordered(self._in_turn(handler, event, record), event, handler)
        until = began + self._timeout_seconds if self._timeout_seconds else None
        try:
            _, rest = self._call(handler, event, self._running(record, until, event), until)
        except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - as in `bordered`
            return outcome_at_border(exc, event, handler)
        return SETTLED if rest is None else bordered(rest, event, handler)

    async def _in_turn(self, handler: EventHandler, event: Event[Any], record: Record) -> None:
        """Call the handler once there is a lane and a thread for it; its time begins then."""
        async with self._lanes.of(record) if self._lanes is not None else nullcontext():
            if not handler.is_async:
                await self._threads.take()
            until = self._until()
            _, rest = self._call(handler, event, self._running(record, until, event), until)
            if rest is not None:
                await rest

    def _call(
        self, handler: EventHandler, argument: Any, running: Running, until: float | None
    ) -> tuple[Any, Awaitable[Any] | None]:
        """
        Call the handler, and return what it has returned, or what is left to await.

        That is cancelled at *until*, and raises TimeoutError then; what waits for nothing cannot be cancelled either.
        """
        enter_call(running)
        called = handler.function(argument) if handler.is_async else self._threads.run(handler, argument)
        try:
            waits_for = called.send(None)
        except StopIteration as done:
            return done.value, None
        rest = rest_of(called, waits_for)
        return None, rest if until is None else self._bounded(handler, rest, until)

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
        running = self._running(batch.first, self._until())
        try:
            with BatchSpan(handler.name, batch.spans):
                # Nobody but us ends a batch whose calls have given up.
                said, rest = self._call(handler, events, running, running.deadline)
                if rest is not None:
                    said = await rest
        except (Exception, asyncio.CancelledError) as exc:
            if isinstance(exc, asyncio.CancelledError) and is_cancelled():
                raise
            told = f"{shown(events[0].id)[:100]} and {len(events) - 1} others"
            return [outcome_of(exc, told, handler.name)] * len(events)
        return each_outcome(said, events, handler)

    def _until(self) -> float | None:
        """Return when the time of a run that begins now is over."""
        return time.monotonic() + self._timeout_seconds if self._timeout_seconds else None

    def _running(self, record: Record, until: float | None, event: Event[Any] | None = None) -> Running:
        call = current_call() if record.system == "http" else None
        if call is None:
            return Running(record, until, self._propagated, event)
        deadlines = [at for at in (until, call.deadline) if at is not None]
        return Running(record, min(deadlines, default=None), self._propagated, event, call)

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


async def _counted(
    begun: Coroutine[Any, Any, Outcome], event_type: str, began: float, span: ProcessSpan | None
) -> Outcome:
    """Await what is left of handling an event, and count it."""
    try:
        outcome = await begun
    except BaseException as exc:
        if span is not None:
            span.fail(exc)
        raise
    TALLY.add(event_type, outcome.kind, time.monotonic() - began, None if span is None else span.end(outcome))
    return outcome

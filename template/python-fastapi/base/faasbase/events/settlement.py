"""What happens after each attempt at an event that we fetch ourselves: settled, tried again later, or a dead letter."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

from ..errors import LONGEST_PAUSE_SECONDS
from ..event_policy import EventsPolicy
from ..resilience import backoff
from .dead_letters import DeadLetter, dead_letter
from .envelope import Envelope, Parcel
from .outcomes import Outcome, outcome_of
from .outgoing import PublishError, TooLargeError
from .processing import Begun, Processor
from .records import Record
from .tally import ATTEMPTS
from .telemetry import DEAD_LETTERS, WAITING

logger = logging.getLogger("faasbase.events")

_SEND_BASE_SECONDS, _SEND_CAP_SECONDS = 0.2, 30.0
_TELL_SECONDS = 60.0


class DeadLetters(Protocol):
    """Where dead letters go."""

    async def send(self, letter: DeadLetter) -> None:
        """
        Keep *letter*; once this returns it is safe.

        Raises:
            TooLargeError: It never will be, as it is.
            PublishError: It is not sure to be.
        """


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of a message: settled, for good where it is *dead*, or tried again *after_seconds*."""

    after_seconds: float | None = None
    dead: bool = False
    counts: bool = True
    """Whether this was one of its attempts."""


DONE = Verdict()
DEAD = Verdict(dead=True)


class Settlement:
    """Runs *processor* and decides by *policy*; what is given up goes to *dead_letters* before it is settled."""

    def __init__(self, processor: Processor, policy: EventsPolicy, dead_letters: DeadLetters, function: str) -> None:
        self._processor, self._policy, self._dead_letters = processor, policy, dead_letters
        self._function = function

    async def handle(self, record: Record, came: Parcel | Envelope) -> Verdict:
        """
        Try *record*, which *came* as that, and return what is to become of it; its ``attempt`` counts this try.

        Cancelled, nothing has become of it.  Where dead letters cannot be sent this waits until they can.
        """
        begun = self.begin(record, came)
        return await self.judge(record, begun if isinstance(begun, Outcome) else await begun)

    def begin(self, record: Record, came: Parcel | Envelope) -> Begun:
        """Begin as `handle` does; what has become of the event is for `judge`, or, if `SETTLED`, only to be counted."""
        try:
            begun = self._processor.begin(record, came)
        except Exception as exc:  # noqa: BLE001 - a mistake of ours counts as well, or it would come again for ever
            return outcome_of(exc, record.position, "faasbase")
        return begun if isinstance(begun, Outcome) else _bordered(begun, record)

    async def judge(self, record: Record, outcome: Outcome) -> Verdict:
        """Return what is to become of *record*, as `handle` does."""
        if outcome.again:
            pause = self._pause(outcome, record.attempt)
            if not self._is_spent(record, outcome, pause):
                return Verdict(pause, counts=outcome.counts)
        ATTEMPTS.add(record.counted_by, record.attempt)
        if not outcome.again and not outcome.dead:
            return DONE
        await self.give_up(record, outcome)
        return DEAD

    async def give_up(self, record: Record, outcome: Outcome) -> None:
        """
        Send *record* to the dead letters, however long that takes.

        What is too large for them even by itself is kept without its content.
        """
        letter = dead_letter(record, outcome, self._function)
        await self._keep(letter, record.counted_by)
        DEAD_LETTERS.inc(destination=record.counted_by, error=outcome.error or outcome.kind)
        logger.error(
            "%s is a dead letter after %d attempt%s: %s",
            record.position,
            record.attempt,
            "" if record.attempt == 1 else "s",
            letter.reason,
            extra={"dead_letter": letter.id, "error_type": outcome.error},
        )

    async def _keep(self, letter: DeadLetter, destination: str) -> None:
        if (error := await self._refused(letter)) is None:
            return
        tries, told_at = 0, -inf
        WAITING.inc(destination=destination)
        try:
            while error is not None:
                if time.monotonic() - told_at >= _TELL_SECONDS:
                    told_at = time.monotonic()
                    unknown = None if isinstance(error, PublishError) else error
                    logger.error(
                        "dead letter of %s cannot be kept, waiting: %s", letter.position, error, exc_info=unknown
                    )
                if isinstance(error, TooLargeError) and tries:
                    # The first time it may have been others, sent in one request with it.
                    letter = letter.shortened()
                await asyncio.sleep(backoff(tries, _SEND_BASE_SECONDS, _SEND_CAP_SECONDS))
                tries += 1
                error = await self._refused(letter)
        finally:
            WAITING.inc(-1.0, destination=destination)

    async def _refused(self, letter: DeadLetter) -> Exception | None:
        try:
            await self._dead_letters.send(letter)
        except Exception as exc:  # noqa: BLE001 - ended by it, the process would meet the same message again
            return exc
        return None

    def _is_spent(self, record: Record, outcome: Outcome, pause: float) -> bool:
        if outcome.counts and record.attempt >= self._policy.max_attempts:
            return True
        limit = self._policy.max_age
        return bool(limit) and record.timestamp is not None and time.time() + pause - record.timestamp > limit

    def _pause(self, outcome: Outcome, attempt: int) -> float:
        if outcome.after_seconds is not None:
            return min(max(0.0, outcome.after_seconds), LONGEST_PAUSE_SECONDS)
        return self._policy.pause_before(attempt + 1)


async def _bordered(begun: Coroutine[Any, Any, Outcome], record: Record) -> Outcome:
    try:
        return await begun
    except Exception as exc:  # noqa: BLE001 - as in `Settlement.begin`
        return outcome_of(exc, record.position, "faasbase")

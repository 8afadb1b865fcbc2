"""What became of an event when its handler ran, whatever brought it."""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from ..errors import FieldError, Problem, Reject, Retry
from .envelope import MalformedError
from .texts import shown

logger = logging.getLogger("faasbase.events")

_MAX_REASON = 1000
_MAX_ERRORS = 32
_SECONDS = re.compile("[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Outcome:
    """
    What became of an event.

    *kind* is ``settled``; ``ignored`` or ``unknown``, no handler takes its type; ``rejected``, it can never be handled;
    ``retried`` and ``failed``, it is to be tried again, as its handler has asked or since that has failed.
    """

    kind: str
    reason: str = ""
    error: str = ""
    """Name of what was raised."""
    after_seconds: float | None = None
    """When to try again, where the handler has said so."""
    problem: Problem | None = None
    """What the handler wants a pusher over HTTP to be told."""
    counts: bool = True
    """Whether it was one of the event's attempts."""

    @property
    def again(self) -> bool:
        """Whether it is to be tried again."""
        return self.kind in ("retried", "failed")

    @property
    def dead(self) -> bool:
        """Whether no later try could succeed."""
        return self.kind in ("rejected", "unknown")


SETTLED = Outcome("settled")
IGNORED = Outcome("ignored")


def outcome_of(exc: BaseException, event_id: str, handler: str) -> Outcome:
    """Return what *exc*, raised for the event *event_id* by its *handler*, makes of it, and log it."""
    event_id = shown(event_id)
    if isinstance(exc, Reject):
        reason = shown(exc.reason or "the event was rejected", _MAX_REASON)
        logger.warning("event %s rejected: %s", event_id, reason)
        return Outcome("rejected", reason, type(exc).__name__)
    if isinstance(exc, Retry):
        reason = shown(exc.reason or "the event is to be sent again", _MAX_REASON)
        logger.info("event %s is to be tried again: %s", event_id, reason)
        return Outcome("retried", reason, "Retry", exc.after_seconds, counts=exc.counts)
    if isinstance(exc, Problem):
        return _of_problem(exc, event_id, handler)
    logger.error("event %s failed in %s", event_id, handler, exc_info=exc)
    return Outcome("failed", "the handler failed; see its log", type(exc).__name__)


def malformed(exc: MalformedError, position: str) -> Outcome:
    """Return the outcome of a message that is no event."""
    reason = shown(exc.reason, _MAX_REASON)
    logger.warning("no event at %s: %s", position or "the sender's", reason)
    problem = Problem(exc.status, reason, errors=exc.errors)
    return Outcome("rejected", reason, type(exc).__name__, problem=problem)


def invalid(exc: ValidationError, position: str) -> Outcome:
    """Return the outcome of an event that its handler's model does not take."""
    found = exc.errors(include_url=False, include_context=False, include_input=False)
    errors = [FieldError(shown(".".join(map(str, e["loc"]))), shown(e["msg"])) for e in found[:_MAX_ERRORS]]
    told = "; ".join(f"{error.field}: {error.message}" for error in errors[:3])
    logger.warning("the event at %s is not valid: %s", position or "the sender's", told)
    problem = Problem(422, "the event is not valid", errors=errors)
    return Outcome("rejected", f"the event is not valid: {told}", "ValidationError", problem=problem)


def _of_problem(problem: Problem, event_id: str, handler: str) -> Outcome:
    """Read a status as a sender would: a 4xx gives the event up, all else has it sent again."""
    reason, error = shown(problem.detail, _MAX_REASON), type(problem).__name__
    if problem.status < 500 and problem.status != 429:
        logger.warning("event %s rejected: %s", event_id, reason)
        return Outcome("rejected", reason, error, problem=problem)
    if problem.status in (429, 503):
        logger.info("event %s is to be tried again: %s", event_id, reason)
        return Outcome("retried", reason, error, _retry_after(problem), problem)
    logger.error("event %s failed in %s: %s", event_id, handler, reason, exc_info=problem)
    return Outcome("failed", reason, error, problem=Problem(503, problem.detail, errors=problem.errors))


def _retry_after(problem: Problem) -> float | None:
    given: Any = next((value for name, value in problem.headers.items() if str(name).lower() == "retry-after"), "")
    return float(text) if _SECONDS.fullmatch(text := str(given)) else None

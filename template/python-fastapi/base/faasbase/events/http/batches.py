"""
Several events in one request, in CloudEvents' batched mode: settled each for itself, side by side, in no order.

204 says that all are settled.  Otherwise the answer's ``failures`` tell which are not, and why; the others are, and
need not be sent again.  503: some are to be sent again; 422: none is, and those named were given up.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...context import current_call
from ...errors import Problem
from ..envelope import Envelope, MalformedError, read_json
from ..outcomes import Outcome

MAX_EVENTS = 1000

_MAX_ID_CHARACTERS = 256
_ANSWER_SECONDS = 0.25
"""Before the call's deadline, what is kept for the answer."""
_LATE = Outcome("failed", "the call's time was over before the event was handled", "TimeoutError")


@dataclass(frozen=True, slots=True)
class Failure:
    """One event of a batch that is not settled: its place, from 0, and what it would have been answered alone."""

    index: int
    event_id: str | None
    problem: Problem
    again: bool

    @property
    def retry_after(self) -> int:
        """Seconds after which it is to be sent again; 1 where its handler has named a date."""
        given = (value for name, value in self.problem.headers.items() if name.lower() == "retry-after")
        return int(text) if (text := next(given, "")).isdigit() and len(text) < 10 else 1

    def as_member(self) -> dict[str, Any]:
        """Return it as the answer shows it."""
        told = {"index": self.index, "id": self.event_id, "status": self.problem.status, "detail": self.problem.detail}
        errors = [{"field": error.field, "message": error.message} for error in self.problem.errors]
        return {**told, "errors": errors} if errors else told


class BatchProblem(Problem):
    """The answer to a batch of which *failures* are not settled, with them as an extension member of RFC 9457."""

    def __init__(self, failures: Sequence[Failure], count: int) -> None:
        again = [failure for failure in failures if failure.again]
        reason = f"{len(failures)} of {count} events are not settled, {len(again)} of them are to be sent again"
        super().__init__(503 if again else 422, reason)
        if again:
            self.headers["Retry-After"] = str(max(failure.retry_after for failure in again))
        self._failures = failures

    def body(self, call_id: str | None = None) -> bytes:
        document = json.loads(super().body(call_id))
        document["failures"] = [failure.as_member() for failure in self._failures]
        return json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")


def read_batch(content: bytes) -> list[Any]:
    """
    Return the events in *content*, unchecked.

    Raises:
        MalformedError: It is no JSON array, or has too many.
    """
    items = read_json(content)
    if not isinstance(items, list):
        raise MalformedError("a batch of events is a JSON array")
    if len(items) > MAX_EVENTS:
        raise MalformedError(f"a batch has {MAX_EVENTS} events at most", status=413)
    return items


async def settle_all(
    works: Sequence[Callable[[], Awaitable[Outcome]]], lanes: Sequence[asyncio.Semaphore]
) -> list[Outcome]:
    """
    Do *works*, each when there is one of its *lanes*, and return their outcomes.

    What is not done a moment before the call's deadline is cancelled and has failed, so that the pusher is told which
    events are settled, and a batch that is too large for one call gets done over several.
    """
    if not works:
        return []

    async def settled(work: Callable[[], Awaitable[Outcome]], free: asyncio.Semaphore) -> Outcome:
        async with free:
            return await work()

    pairs = zip(works, lanes, strict=True)
    tasks = [asyncio.create_task(settled(work, free), name="pushed event") for work, free in pairs]
    try:
        await asyncio.wait(tasks, timeout=_seconds_left())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return [_LATE if task.cancelled() else task.result() for task in tasks]


def shown_id(envelope: Envelope) -> str | None:
    """Return the event's id, where it has one that can be shown."""
    event_id = envelope.attributes.get("id")
    return event_id if isinstance(event_id, str) and len(event_id) <= _MAX_ID_CHARACTERS else None


def _seconds_left() -> float | None:
    call = current_call()
    left = call.remaining_seconds() if call else None
    return None if left is None else max(0.0, left - min(_ANSWER_SECONDS, left / 10))

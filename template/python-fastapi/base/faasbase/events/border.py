"""The border between handlers and us: what they raise, or return, is what becomes of their events."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from .envelope import Event
from .handlers import EventHandler
from .outcomes import SETTLED, Outcome, outcome_of


async def bordered(rest: Awaitable[Any], event: Event[Any], handler: EventHandler) -> Outcome:
    """Await the *rest* of handling *event*, and return what became of it."""
    try:
        said = await rest
    except (Exception, asyncio.CancelledError) as exc:  # noqa: BLE001 - see the top
        return outcome_at_border(exc, event, handler)
    return said if isinstance(said, Outcome) else SETTLED


def outcome_at_border(exc: Exception | asyncio.CancelledError, event: Event[Any], handler: EventHandler) -> Outcome:
    """Return what *exc* makes of the event; raises it again where it says that somebody wants this task to end."""
    if isinstance(exc, asyncio.CancelledError) and is_cancelled():
        raise exc
    return outcome_of(exc, event.id, handler.name)


def is_cancelled() -> bool:
    """Tell whether somebody wants this task to end: a handler may as well await what was cancelled elsewhere."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def each_outcome(said: Any, events: Sequence[Event[Any]], handler: EventHandler) -> list[Outcome]:
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

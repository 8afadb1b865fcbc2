"""Finish what was begun, even where the caller is cancelled meanwhile."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from anyio import CancelScope

T = TypeVar("T")


async def finished(work: Coroutine[Any, Any, T]) -> T:
    """
    Return what *work* returns; a caller who is cancelled goes only when it has ended.

    *work* needs a deadline of its own.
    """
    task = asyncio.create_task(work)
    await _ended(task)
    return task.result()


async def stopped(*tasks: "asyncio.Task[Any]") -> None:
    """Cancel *tasks* and wait until they have ended, whatever becomes of the caller."""
    for task in tasks:
        task.cancel()
    await _ended(*tasks)


async def _ended(*tasks: "asyncio.Task[Any]") -> None:
    cancelled: asyncio.CancelledError | None = None
    with CancelScope(shield=True):
        while waiting := [task for task in tasks if not task.done()]:
            try:
                await asyncio.wait(waiting)
            except asyncio.CancelledError as exc:
                cancelled = exc
    for task in tasks:
        # Marks an error as seen: of a cancelled caller, or of a stopped task, nobody asks for it.
        _ = task.cancelled() or task.exception()
    if cancelled is not None:
        raise cancelled

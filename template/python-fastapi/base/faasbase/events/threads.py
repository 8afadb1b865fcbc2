"""Threads for handlers that are plain functions: so many, apart from those that the function's calls run in."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import anyio.to_thread

from .handlers import EventHandler
from .outcomes import logger

_TELL_SECONDS, _TELL_AGAIN_SECONDS = 10.0, 60.0


@dataclass(slots=True, eq=False)
class _Run:
    handler: EventHandler
    unbegun: list[None] = field(default_factory=lambda: [None])
    """Emptied by whoever comes first: the thread that begins, or the one that no longer wants it to."""
    given_up: bool = False
    ended: bool = False


class HandlerThreads:
    """
    Up to *most* threads.

    A run is cancelled by leaving its thread alone, which goes on: it is free again when it ends by itself, or else a
    handler that hangs would get another one with each attempt.
    """

    def __init__(self, most: int) -> None:
        self._most, self._free = most, asyncio.Semaphore(most)
        self._unlimited = anyio.CapacityLimiter(math.inf)
        self._late: Counter[str] = Counter()
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None

    async def take(self) -> None:
        """Wait for a thread, which is the caller's for one `run`."""
        if not self._free.locked():
            await self._free.acquire()
            return
        self._waiting += 1
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_TELL_SECONDS, self._tell)
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1

    async def run(self, handler: EventHandler, argument: Any) -> Any:
        """Call *handler* in the thread that was taken; cancelled, this does not wait for its end."""
        run = _Run(handler)
        call = partial(self._work, asyncio.get_running_loop(), run, argument)
        try:
            return await anyio.to_thread.run_sync(call, abandon_on_cancel=True, limiter=self._unlimited)
        finally:
            if _first(run):
                self._free.release()
            elif not run.ended:
                run.given_up = True
                self._late[handler.name] += 1

    def _work(self, loop: asyncio.AbstractEventLoop, run: _Run, argument: Any) -> Any:
        if not _first(run):
            return None
        try:
            return run.handler.function(argument)
        finally:
            # A loop that is closed hands out no threads any more.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._end, run)

    def _end(self, run: _Run) -> None:
        run.ended = True
        self._free.release()
        if run.given_up:
            self._late[run.handler.name] -= 1

    def _tell(self) -> None:
        self._timer = None
        if not self._waiting:
            return
        late = ", ".join(f"{name} ({count})" for name, count in self._late.most_common() if count > 0)
        logger.warning(
            "%d runs wait for one of the %d threads of handlers; past their time, and still in one: %s",
            self._waiting,
            self._most,
            late or "none",
        )
        self._timer = asyncio.get_running_loop().call_later(_TELL_AGAIN_SECONDS, self._tell)


def _first(run: _Run) -> bool:
    try:
        run.unbegun.pop()
    except IndexError:
        return False
    return True

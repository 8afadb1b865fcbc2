"""Time limits of many short runs: one look at the clock for all, since a timer for each would cost too much."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from types import coroutine
from typing import Any

logger = logging.getLogger("faasbase.events")

_TICK_SECONDS = 0.05
_CLEAN_UP_SECONDS, _INSIST_SECONDS = 5.0, 60.0


@dataclass(slots=True)
class _Cut:
    """A run that was cancelled, and what has come of it."""

    name: str
    at: float
    again_at: float
    times: int = 1

    def insist(self, task: asyncio.Task[object], now: float) -> None:
        """Cancel *task* again, and tell of it."""
        self.times += 1
        since = now - self.at
        self.again_at = now + min(since, _INSIST_SECONDS)
        logger.error("%s has not ended %.0f s after its time was over and it was cancelled", self.name, since)
        task.cancel()


class Deadlines:
    """
    Cancels the tasks whose time is over, up to 50 ms late, and again from time to time where one goes on all the same.

    ``enter(task, at, name)`` before a run and ``leave(task)`` behind it, which tells whether it was cut.
    """

    def __init__(self) -> None:
        self._running: dict[asyncio.Task[object], tuple[float, str]] = {}
        self._cut: dict[asyncio.Task[object], _Cut] = {}
        self._timer: asyncio.TimerHandle | None = None

    def enter(self, task: asyncio.Task[object], at: float, name: str) -> None:
        """Cancel *task*, which runs what has that *name*, once the clock of `time.monotonic` shows *at*."""
        self._running[task] = at, name
        if self._timer is None:
            self._timer = task.get_loop().call_later(_TICK_SECONDS, self._look)

    def leave(self, task: asyncio.Task[object]) -> bool:
        """Forget *task*; True where it was cancelled by us, which is taken back."""
        self._running.pop(task, None)
        if (cut := self._cut.pop(task, None)) is None:
            return False
        for _ in range(cut.times):
            task.uncancel()
        return True

    def _look(self) -> None:
        now = time.monotonic()
        self._timer = None
        for task, (at, name) in list(self._running.items()):
            if now >= at:
                del self._running[task]
                self._cut[task] = _Cut(name, now, now + _CLEAN_UP_SECONDS)
                task.cancel()
        for task, cut in self._cut.items():
            if now >= cut.again_at:
                cut.insist(task, now)
        for task in self._running or self._cut:
            self._timer = task.get_loop().call_later(_TICK_SECONDS, self._look)
            break


@coroutine
def rest_of(begun: Coroutine[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Any]:
    """Return what is left to await of *begun*, which *waits_for* something after its first step."""
    while True:
        try:
            yield waits_for
        except BaseException as exc:  # noqa: BLE001 - all of it is for what has begun
            try:
                waits_for = begun.throw(exc)
            except StopIteration as done:
                return done.value
        else:
            return (yield from begun)

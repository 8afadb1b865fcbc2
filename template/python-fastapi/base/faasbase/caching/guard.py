"""Watch over a server that the cache asks: when it does not answer it is left alone, and tried in the background."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from ..connections import ConnectionsError, RefusedError
from ..metrics import gauge
from ..resilience import Breaker, State
from .backend import CacheError, NotDoneError

log = logging.getLogger(__name__)

FAILURES = 3
"""One after the other, until the server is left alone; those that were waiting at the same time are one."""
OPEN_SECONDS = 1.0
"""Between two tries in the background; calls do not wait for any of them."""
_REFUSES_VALUES = frozenset({"OOM", "MISCONF", "READONLY", "NOREPLICAS", "NOPERM"})
"""Answers of a server that can be read and deletes: full, unable to save, a replica, or short of rights."""


class Guard:
    """
    Counts failures, and tells each change of state in one log line.

    *attempt* asks the server whether it works and does there what must be done before it is used again; it runs in a
    task of the guard's own that `close` ends.
    """

    def __init__(self, attempt: Callable[[], Awaitable[None]], clock: Callable[[], float] = time.monotonic) -> None:
        self._attempt = attempt
        self._breaker = Breaker(failures=FAILURES, open_seconds=OPEN_SECONDS, on_change=self._changed)
        self._works = gauge("faas_cache_up", "Whether the cache's server is asked: 0 while it does not answer.")
        self._takes = gauge("faas_cache_writable", "Whether the cache's server takes values: 0 while it is full.")
        self._works.set(1)
        self._takes.set(1)
        self._reason = ""
        self._clock, self._failed_at = clock, -1.0
        self._alone = self.refusing = False
        self._task: asyncio.Task[None] | None = None

    def check(self) -> float:
        """
        Let the caller go on if the server is worth asking, and return what `failed` is told of that moment.

        Raises:
            NotDoneError: It is left alone now.
        """
        if not self._breaker.closed:
            raise NotDoneError("the server has not answered and is left alone for a while")
        return self._clock()

    def succeeded(self, *, stored: bool = False) -> None:
        """Note an answer, *stored* if a value was taken."""
        self._breaker.succeeded()
        if stored and self.refusing:
            self.refusing = False
            self._takes.set(1)
            log.info("the cache's server takes values again")

    def failed(self, exc: ConnectionsError | TimeoutError, began: float) -> CacheError:
        """Note *exc* of what was asked when it *began*, and return what is raised in its place."""
        if isinstance(exc, RefusedError) and exc.code in _REFUSES_VALUES:
            self._breaker.succeeded()
            self._refused(exc)
        else:
            self._reason = str(exc)
            # A moment's stall fails everything that waits, and is no reason to do without the server.
            if began >= self._failed_at:
                self._failed_at = self._clock()
                self._breaker.failed()
        kind = NotDoneError if isinstance(exc, RefusedError) else CacheError
        return kind(str(exc))

    def try_again_later(self) -> None:
        """Run the attempt in a while, whether the server is left alone or not."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._try_until_it_works(), name="cache probe")

    async def close(self) -> None:
        """End the attempts."""
        task, self._task = self._task, None
        if task is not None and not task.done() and task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _try_until_it_works(self) -> None:
        while True:
            await asyncio.sleep(OPEN_SECONDS)
            if not self._breaker.allow():
                continue
            try:
                await self._attempt()
            except (ConnectionsError, TimeoutError) as exc:
                self.failed(exc, self._clock())
            except Exception as exc:  # noqa: BLE001 - nothing but this task closes the breaker
                self._stumbled(exc)
            else:
                self._breaker.succeeded()
                # Calls may have failed beside a try that was for debts only, and nothing else would close it again.
                if self._breaker.closed:
                    return

    def _stumbled(self, exc: Exception) -> None:
        """Note a try that ended as none should, in one log line for each kind of error in a row."""
        reason = f"a try ended with {type(exc).__name__}"
        if reason != self._reason:
            log.error("the cache's server cannot be tried", exc_info=exc)
        self._reason = reason
        self._breaker.failed()

    def _refused(self, exc: RefusedError) -> None:
        if not self.refusing:
            self.refusing = True
            self._takes.set(0)
            log.warning("the cache's server takes no values (%s): what it has is used, the rest is loaded", exc.code)

    def _changed(self, state: State) -> None:
        if state is State.OPEN and not self._alone:
            # A try that has failed opens it once more, which is no news.
            self._alone = True
            self._works.set(0)
            log.warning("the cache's server is left alone (%s): values are loaded without it", self._reason)
            self.try_again_later()
        elif state is State.CLOSED:
            self._alone = False
            self._works.set(1)
            log.info("the cache's server answers again")

"""One run of an operation by its owner: the lease is renewed while it lasts, and its end is recorded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from .. import metrics
from ..owned import OwnedTasks
from ..resilience import backoff
from .backend import Claim, Done, Running
from .backend import RecordBackend as Backend
from .errors import OperationLostError, RecordsError
from .operation import Operation, entered

logger = logging.getLogger(__name__)

T = TypeVar("T")

OUTCOMES = metrics.counter("faas_idempotent_runs", "Runs of idempotent handlers by their end.", ("function", "outcome"))

_FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.05, 1.0


class Attempt:
    """
    Belongs to the event loop; *leased_until* is on its clock, counted from before the lease was asked for.

    After that moment nothing is done in the operation's name: an ``async def`` is cancelled, a ``def``, which cannot
    be, gets no result recorded.
    """

    def __init__(
        self,
        backend: Backend,
        claim: Claim,
        operation: Operation,
        tasks: OwnedTasks,
        leased_until: float,
        shown: str,
    ) -> None:
        self.operation, self.shown = operation, shown
        self._backend, self._claim, self._tasks = backend, claim, tasks
        self._until = leased_until
        self._limit: asyncio.Timeout | None = None
        self._own: asyncio.Task[Any] | None = None
        self._loop = asyncio.get_running_loop()
        self._renewal = self._loop.create_task(self._renew(), name="idempotency lease")

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """
        Return what *function* returns, within the lease.

        One that raises is over, and the next run may begin.  One that is cancelled may have something on its way
        still, so its lease goes on until it ends by itself.

        Raises:
            OperationLostError: The lease has ended before it did.
        """
        limit = asyncio.timeout_at(self._until)
        try:
            with entered(self.operation):
                async with limit as self._limit:
                    return await function()
        except Exception as exc:
            if limit.expired():
                raise self.lost() from exc
            await self.release()
            raise
        except BaseException:
            self.leave()
            raise

    async def finish(self, result: bytes) -> Done | None:
        """
        Record *result*, or return that of another run which has taken over.

        Where the records cannot be asked that goes on in the background, as long as the lease is sure to last.

        Raises:
            OperationLostError: Another run has taken over, or may have.
        """

        task = self._persist(lambda: self._backend.finish(self._claim, self._fence(), result))
        if not await self._ended(task):
            if self._loop.time() >= self._until:
                raise self.lost()
            OUTCOMES.inc(function=self.shown, outcome="unrecorded")
            logger.error("the result of %s cannot be recorded now", self.shown)
            return None
        try:
            found = task.result()
        except RecordsError as exc:
            raise self.lost() from exc
        if isinstance(found, Running):
            raise self.lost()
        OUTCOMES.inc(function=self.shown, outcome="ran" if found is None else "lost")
        return found

    async def release(self) -> None:
        """Let the next run begin; the caller waits for that only as long as the records take to answer."""
        OUTCOMES.inc(function=self.shown, outcome="failed")
        await self._ended(self._persist(lambda: self._backend.release(self._claim)))

    def leave(self) -> None:
        """Let the lease end by itself."""
        OUTCOMES.inc(function=self.shown, outcome="cancelled")
        self._renewal.cancel()

    def lost(self) -> OperationLostError:
        """Return the error of a run that another one may have replaced."""
        OUTCOMES.inc(function=self.shown, outcome="lost")
        self._renewal.cancel()
        return OperationLostError()

    def _fence(self) -> int:
        """Return the fence, or 0 where another run may have come and gone since the lease was renewed."""
        return self.operation.fence if self._loop.time() < self._until else 0

    def _persist(self, step: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T]:
        """Do *step* in a task of its own: the end of the call does not end it, and the lease goes on meanwhile."""
        task = self._tasks.start(self._repeat(step), "idempotency record")
        if task is None:
            # Too many have piled up: this one goes on as long as its own call waits for it.
            task = self._own = self._loop.create_task(self._repeat(step), name="idempotency record")
        task.add_done_callback(self._settled)
        return task

    def _settled(self, task: asyncio.Task[Any]) -> None:
        self._renewal.cancel()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("the end of a run of %s was not recorded: %s", self.shown, error)

    async def _repeat(self, step: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Repeat *step* while it fails and the lease lasts."""
        for count in range(1_000_000):
            try:
                return await step()
            except RecordsError:
                pause = 0.01 + backoff(count, _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
                if self._loop.time() + pause >= self._until:
                    raise
            await asyncio.sleep(pause)
        raise RecordsError("repeated too often")

    async def _ended(self, task: asyncio.Task[Any]) -> bool:
        try:
            await asyncio.wait({task}, timeout=self._backend.deadline_seconds + _LONGEST_PAUSE_SECONDS)
        finally:
            if task is self._own:
                task.cancel()
        return task.done()

    async def _renew(self) -> None:
        pause = self._claim.lease_seconds / 3
        while True:
            await asyncio.sleep(pause)
            asked_at = self._loop.time()
            try:
                held = await self._backend.renew(self._claim, self._fence())
            except RecordsError:
                # The limit ends the run if none of the next tries comes through before the lease ends.
                pause = self._claim.lease_seconds / 10
                continue
            pause = self._claim.lease_seconds / 3
            self._until = asked_at + self._claim.lease_seconds if held else self._loop.time()
            if self._limit is not None and not self._limit.expired():
                self._reschedule(self._limit)
            if not held:
                return

    def _reschedule(self, limit: asyncio.Timeout) -> None:
        try:
            limit.reschedule(self._until)
        except RuntimeError:
            # The run has ended; what is left is to record it.
            self._limit = None

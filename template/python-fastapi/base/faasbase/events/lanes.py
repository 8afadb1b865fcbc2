"""The records of one partition side by side: in order for each key, and no more at a time than there are lanes."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from time import monotonic
from typing import Any, Generic, TypeVar, cast

from .loop_share import LoopShare

Item = TypeVar("Item")

SIZE = 8
CANCEL_SECONDS = 5.0
"""What was cancelled gets that long to clean up."""


class Lanes(Generic[Item]):
    """
    Run items, those with one key one after the other, up to *size* at a time.

    *run* returns None when it is done with an item, or the seconds after which it wants the same one again, or awaits
    in a coroutine what it will return.  Until then the key is parked: it takes up no lane, its later items wait behind
    it, and other keys go on.  An exception is a mistake of *run*'s: *on_error* gets it, and the key is held, so that
    nothing overtakes the item.  Items without a key, and all of them unless *ordered*, know no order.  Whoever submits
    bounds how much waits.

    Each run has a copy of the context that the lanes were made in.  Runs that follow each other have one task, and
    several lanes one *share* of the loop.
    """

    def __init__(
        self,
        run: Callable[[Item], Coroutine[Any, Any, float | None] | float | None],
        on_error: Callable[[BaseException], None],
        *,
        size: int = SIZE,
        ordered: bool = True,
        name: str = "lane",
        share: LoopShare | None = None,
    ) -> None:
        self._run, self._on_error = run, on_error
        self._size, self._ordered, self._name = size, ordered, name
        self._share = share or LoopShare()
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self._ready: deque[tuple[bytes | None, Item]] = deque()
        # The keys whose item is under way, which one that waits for nothing never is; None where nothing is behind it.
        self._behind: dict[bytes, deque[Item] | None] = {}
        self._released: deque[tuple[bytes | None, Item]] = deque()
        self._waiting_behind = 0
        self._parked: dict[object, tuple[asyncio.TimerHandle, Item]] = {}
        self._workers: set[asyncio.Task[None]] = set()
        self._held_up = 0
        self._stopped = self._cancelled = False

    @property
    def running(self) -> int:
        """How many lanes are in use."""
        return len(self._workers)

    @property
    def waiting(self) -> int:
        """How many items wait for a lane or behind their key's first one."""
        return len(self._ready) + len(self._released) + self._waiting_behind

    @property
    def parked(self) -> int:
        """How many items wait for their time to be run again."""
        return len(self._parked)

    def submit(self, *items: tuple[bytes | None, Item]) -> None:
        """
        Run *items*, each with its key, when their turn comes.

        Raises:
            RuntimeError: The lanes are stopped.
        """
        if self._stopped:
            raise RuntimeError("the lanes are stopped")
        self._ready.extend(items if self._ordered else [(None, item) for _, item in items])
        self._spread()

    def stop(self) -> list[Item]:
        """Start nothing any more; return what was waiting or parked, which is never run."""
        self._stopped = True
        for timer, _ in self._parked.values():
            timer.cancel()
        left = [item for _, item in self._parked.values()]
        left += [item for waiting in (self._released, self._ready) for _, item in waiting]
        left += [item for queue in self._behind.values() for item in queue or ()]
        for waiting in (self._parked, self._released, self._ready, self._behind):
            waiting.clear()
        self._waiting_behind = 0
        return left

    async def drained(self, timeout_seconds: float) -> bool:
        """Wait, after `stop`, until no run is under way; return False if some still are after *timeout_seconds*."""
        if self._workers:
            await asyncio.wait(set(self._workers), timeout=timeout_seconds)
        return not self._workers

    async def cancel(self, timeout_seconds: float = CANCEL_SECONDS) -> bool:
        """Stop, cancel what runs and wait for its end; return False if some refuses to end."""
        self._cancelled = True
        self.stop()
        for worker in self._workers:
            worker.cancel()
        return await self.drained(timeout_seconds)

    def _queue_behind(self, key: bytes, item: Item) -> None:
        queue = self._behind[key]
        if queue is None:
            self._behind[key] = deque((item,))
        else:
            queue.append(item)
        self._waiting_behind += 1

    def _spread(self) -> None:
        """Begin a worker, if all there are wait inside a run: runs that wait for nothing need no more than one."""
        if self._held_up == len(self._workers) < self._size and (self._ready or self._released):
            worker = self._loop.create_task(self._work(), name=self._name, context=self._context.copy())
            self._workers.add(worker)
            worker.add_done_callback(self._ended, context=self._context)

    def _ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        if not worker.cancelled() and (exc := worker.exception()) is not None:
            self._on_error(exc)
        # What was submitted since it looked for the last time has found no free lane.
        self._spread()

    async def _work(self) -> None:
        """Run what is ready until nothing is."""
        self._share.busy += 1
        try:
            await self._run_ready()
        finally:
            self._share.busy -= 1

    async def _run_ready(self) -> None:
        """Run it, by turns with the rest of the loop."""
        ready, released, behind = self._ready, self._released, self._behind
        run, contexts = self._run, self._context.copy
        task = cast(asyncio.Task[None], asyncio.current_task())
        turn_ends = monotonic() + self._share.seconds
        # Whoever has asked for this task's end meant a run that is over: the next one needs a task of its own.
        while (released or ready) and not task.cancelling():
            if released:
                key, item = released.popleft()
            else:
                key, item = ready.popleft()
                if key in behind:
                    self._queue_behind(key, item)
                    continue
            context = contexts()
            try:
                seconds = context.run(run, item)
                if seconds is not None and not isinstance(seconds, float | int):
                    seconds = await self._rest(key, seconds, context)
            except BaseException as exc:
                self._hold(key)
                if isinstance(exc, asyncio.CancelledError) and not self._cancelled:
                    self._on_error(exc)
                raise
            if seconds is not None:
                self._park(key, item, seconds)
            elif key in behind:
                self._release(key)
            if monotonic() > turn_ends and not task.cancelling():
                await asyncio.sleep(0)
                turn_ends = monotonic() + self._share.seconds

    async def _rest(
        self, key: bytes | None, begun: Coroutine[Any, Any, float | None], context: Context
    ) -> float | None:
        """Await what a run has left, while others are begun where it waits for something."""
        try:
            waits_for = context.run(begun.send, None)
        except StopIteration as done:
            return cast(float | None, done.value)
        self._hold(key)
        self._held_up += 1
        self._share.busy -= 1
        self._spread()
        try:
            return await _Apart(begun, context, waits_for)
        finally:
            self._held_up -= 1
            self._share.busy += 1

    def _hold(self, key: bytes | None) -> None:
        """Let nothing overtake the item of *key* that is under way."""
        if key is not None:
            self._behind.setdefault(key, None)

    def _release(self, key: bytes) -> None:
        if self._stopped:
            return
        queue = self._behind[key]
        if queue:
            self._released.append((key, queue.popleft()))
            self._waiting_behind -= 1
        else:
            del self._behind[key]

    def _park(self, key: bytes | None, item: Item, seconds: float) -> None:
        if self._stopped:
            return
        self._hold(key)
        ticket = object()
        timer = self._loop.call_later(max(0.0, seconds), self._wake, ticket, key, item, context=self._context)
        self._parked[ticket] = (timer, item)

    def _wake(self, ticket: object, key: bytes | None, item: Item) -> None:
        del self._parked[ticket]
        self._released.append((key, item))
        self._spread()


class _Apart(Generator[Any, Any, float | None]):
    """Awaits in a *context* of its own what is left of *run*, which has begun and *waits_for* something now."""

    __slots__ = ("_begun", "_context", "_run")

    def __init__(self, run: Coroutine[Any, Any, float | None], context: Context, waits_for: Any) -> None:
        self._run, self._context, self._begun = run, context, [waits_for]

    def __await__(self) -> Generator[Any, Any, float | None]:
        return self

    def __next__(self) -> Any:
        return self._begun.pop() if self._begun else self._context.run(self._run.send, None)

    def send(self, value: Any) -> Any:
        return self._context.run(self._run.send, value)

    def throw(self, *args: Any) -> Any:
        return self._context.run(self._run.throw, *args)

    def close(self) -> None:
        self._context.run(self._run.close)

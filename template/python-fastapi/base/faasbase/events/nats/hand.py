"""The messages that a consumer has in hand: running or waiting, each once, as many at a time as there are lanes."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Container, Coroutine
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

from ..envelope import Parcel
from ..records import Record
from .client import Message
from .messages import record_of

CANCEL_SECONDS = 5.0
"""What was cancelled gets that long to clean up."""
_SHORTEST_SECONDS = 0.01
_GATHER_SECONDS = 0.05
"""What was asked for at once comes within that: the first to come is not always the first to run."""


@dataclass(slots=True, eq=False)
class Held:
    """A message in hand; *reply* is that of its last delivery, since it may come again while it runs."""

    reply: str
    record: Record
    parcel: Parcel


class Hand:
    """
    Runs messages, up to *size* at a time; *changed* is called when there is room again, or *error*.

    Those delivered more than *last_attempt* times have seen their process end at the last: each runs alone, so that no
    other suffers for the one that ends it, and in another order each time, so that this one is not always the first.
    What is *settled*, by its position, and comes again all the same is not run: the server has not read yet that it is.
    """

    def __init__(
        self,
        run: Callable[[Held], Coroutine[Any, Any, None]],
        changed: Callable[[], None],
        *,
        size: int,
        last_attempt: int,
        settled: Container[str] = (),
    ) -> None:
        self.size = size
        self.error: BaseException | None = None
        """A mistake of *run*'s."""
        self._run, self._changed, self._last_attempt, self._settled = run, changed, last_attempt, settled
        self._held: dict[str, Held] = {}
        self._ready: deque[Held] = deque()
        self._suspects: list[Held] = []
        self._parked: dict[Held, asyncio.TimerHandle] = {}
        self._running: dict[asyncio.Task[None], Held] = {}
        self._alone = self._gathering = self._stopped = False
        self._context = copy_context()

    @property
    def room(self) -> int:
        """How many more messages could be run at once."""
        return 0 if self._suspects or self._alone else max(0, self.size - len(self._held) + len(self._parked))

    @property
    def running(self) -> int:
        """How many lanes are in use."""
        return len(self._running)

    def replies(self) -> list[str]:
        """Return where the server is told of the messages in hand."""
        return [held.reply for held in self._held.values()]

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped = True

    def take(self, message: Message) -> Record | None:
        """Run *message* when its turn comes and return its record; None where it is in hand, or settled, already."""
        record, parcel = record_of(message)
        if record.position in self._settled:
            return None
        if known := self._held.get(record.position):
            known.reply = message.reply
            return None
        held = Held(message.reply, record, parcel)
        self._held[record.position] = held
        self._line_up(held)
        return record

    def park(self, held: Held, seconds: float) -> None:
        """Keep *held*, whose run ends now, and run it once more after *seconds*: the server would count that."""
        if not self._stopped:
            self._parked[held] = asyncio.get_running_loop().call_later(
                max(seconds, _SHORTEST_SECONDS), self._unpark, held
            )

    def release(self) -> list[Held]:
        """Return what has not begun, which is never run."""
        left = [*self._ready, *self._suspects, *self._parked]
        for timer in self._parked.values():
            timer.cancel()
        self._ready.clear()
        self._suspects.clear()
        self._parked.clear()
        for held in left:
            del self._held[held.record.position]
        return left

    async def drain(self, seconds: float) -> None:
        """Wait up to *seconds* for what runs, then cancel it and wait for its end."""
        if self._running:
            _, late = await asyncio.wait(set(self._running), timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late, timeout=CANCEL_SECONDS)

    def _unpark(self, held: Held) -> None:
        del self._parked[held]
        self._line_up(held)

    def _line_up(self, held: Held) -> None:
        if held.record.attempt > self._last_attempt:
            self._gather(held)
        else:
            self._ready.append(held)
        self._start()

    def _gather(self, held: Held) -> None:
        """Choose among suspects once those that come together are all here."""
        if not self._suspects:
            self._gathering = True
            asyncio.get_running_loop().call_later(_GATHER_SECONDS, self._gathered)
        self._suspects.append(held)

    def _gathered(self) -> None:
        self._gathering = False
        self._start()

    def _next_suspect(self) -> Held:
        """Return the first, in the next process the last, later any: all others ran before the one that ends both."""
        self._suspects.sort(key=lambda held: held.record.offset)
        ends = max(held.record.attempt for held in self._suspects) - self._last_attempt
        index = {1: 0, 2: -1}.get(ends, random.randrange(len(self._suspects)))  # noqa: S311 - no secret
        return self._suspects.pop(index)

    def _start(self) -> None:
        if self._alone or self._gathering or self._stopped:
            return
        if self._suspects:
            if not self._running:
                self._alone = True
                self._begin(self._next_suspect())
            return
        while self._ready and len(self._running) < self.size:
            self._begin(self._ready.popleft())

    def _begin(self, held: Held) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run(held), name="nats message", context=self._context.copy())
        self._running[task] = held
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        held = self._running.pop(task)
        if held not in self._parked:
            self._held.pop(held.record.position, None)
        self._alone = False
        if not task.cancelled() and (error := task.exception()) is not None:
            self.error = error
        self._start()
        self._changed()

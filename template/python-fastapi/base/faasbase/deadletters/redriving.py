"""Redrive and purge: something is done to each letter, a few side by side, and what became of it is counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from .arguments import Options
from .filtering import Selection
from .letters import LetterError, Letters, PlaceError, Stored
from .rendering import as_json, as_line, plain
from .terminal import Terminal

SIDE_BY_SIDE = 16
END_SECONDS = 5.0
"""What is half done when the command is interrupted gets that long."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is done to a letter, and the word for it."""

    done: str
    to: Callable[[Stored], Awaitable[None]]


def redriving(letters: Letters, to: str) -> Change:
    """Return the change that sends a message back, to its own destination unless *to* is another."""

    async def put_back(stored: Stored) -> None:
        letter = stored.letter
        if letter.system != letters.system:
            # Each transport has names of its own for headers: what came by one would be no event over another.
            raise LetterError(f"it came by {letter.system} and cannot go back over {letters.system}")
        if letter.truncated is not None:
            what = f"its content, {letter.truncated} bytes, was too large to be kept"
            raise LetterError(f"{what}: the message was at {letter.position}")
        await letters.put_back(letter, to or letter.destination)
        # Only now: a process that dies before this leaves the letter, and with it the message.
        await letters.remove(stored)

    return Change("redriven", put_back)


def purging(letters: Letters) -> Change:
    """Return the change that removes a letter."""
    return Change("purged", letters.remove)


async def change(letters: Letters, what: Change, options: Options, terminal: Terminal) -> int:
    """
    Do *what* to each letter that *options* select, and return the exit status.

    Cancelled, it begins nothing more and lets what is under way end; it always tells how far it has come.

    Raises:
        PlaceError: The broker does not answer.
    """
    selection = Selection(letters, options.wanted, options.limit)
    if options.dry_run:
        return await _tell(selection, what, options, terminal)
    changing = Changing(what, letters, selection, options, terminal)
    async with aclosing(selection.found()) as found:
        try:
            await changing.run(found)
        finally:
            await changing.finish()
            terminal.warn(changing.summary)
    for missing in selection.missing:
        terminal.warn(f"{plain(missing)}: there is no such letter")
    return 1 if changing.failed or selection.missing else 0


class Changing:
    """Letters that are being changed, *SIDE_BY_SIDE* at most, in the order in which they are found for each key."""

    def __init__(
        self, what: Change, letters: Letters, selection: Selection, options: Options, terminal: Terminal
    ) -> None:
        self._what, self._letters, self._selection, self._terminal = what, letters, selection, terminal
        self._json, self._pause_seconds = options.json, 1 / options.rate
        self._next_at = 0.0
        self._running: set[asyncio.Task[None]] = set()
        self._last: dict[bytes, asyncio.Task[None]] = {}
        """Of each key, what is under way and was begun last."""
        self._broken: PlaceError | None = None
        self.done = 0
        self.failed = 0

    @property
    def summary(self) -> str:
        """How far it has come."""
        foreign = f", {self._letters.foreign} foreign messages left alone" if self._letters.foreign else ""
        return f"{self.done} {self._what.done}, {self.failed} failed{foreign}"

    async def run(self, found: AsyncGenerator[Stored, None]) -> None:
        """
        Change each letter of *found*.

        Raises:
            PlaceError: The broker does not answer.
        """
        async for stored in found:
            await self._turn()
            if self._broken:
                break
            self._begin(stored)
            self._terminal.progress(self._selection.seen, self._letters.total, self.summary)
        while self._running:
            await asyncio.wait(self._running)
        if self._broken:
            raise self._broken

    def _begin(self, stored: Stored) -> None:
        key = stored.letter.key
        before = self._last.get(key) if key is not None else None
        task = asyncio.create_task(self._change(stored, before), name=f"letter {stored.letter.id}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        if key is not None:
            self._last[key] = task
            task.add_done_callback(partial(self._ended, key))

    def _ended(self, key: bytes, task: asyncio.Task[None]) -> None:
        if self._last.get(key) is task:
            del self._last[key]

    async def finish(self) -> None:
        """Let what is under way end, within a moment."""
        running = set(self._running)
        if not running:
            return
        _, late = await asyncio.wait(running, timeout=END_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _turn(self) -> None:
        """Wait until the next letter may begin."""
        now = asyncio.get_running_loop().time()
        self._next_at = max(now, self._next_at + self._pause_seconds)
        await asyncio.sleep(self._next_at - now)
        while len(self._running) >= SIDE_BY_SIDE:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    async def _change(self, stored: Stored, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait({before})
        try:
            await self._what.to(stored)
        except LetterError as exc:
            self._failed(stored, exc)
        except PlaceError as exc:
            self._failed(stored, exc)
            self._broken = exc
        else:
            self.done += 1
            if self._json:
                self._terminal.say(json.dumps({"id": stored.letter.id, "result": self._what.done}))

    def _failed(self, stored: Stored, exc: Exception) -> None:
        self.failed += 1
        self._terminal.warn(plain(f"{stored.letter.id}: {exc}"))
        if self._json:
            self._terminal.say(json.dumps({"id": stored.letter.id, "result": "failed", "reason": str(exc)}))


async def _tell(selection: Selection, what: Change, options: Options, terminal: Terminal) -> int:
    async with aclosing(selection.found()) as found:
        async for stored in found:
            terminal.say(as_json(stored, content=False) if options.json else as_line(stored))
    terminal.warn(f"{selection.taken} would be {what.done}")
    return 1 if selection.missing else 0

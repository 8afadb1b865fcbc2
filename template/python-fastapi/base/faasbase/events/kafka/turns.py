"""Who may run: records side by side, or one all by itself, over all partitions that this process has."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """
    Counts what runs, so that a record which may end the process takes no other one with it.

    ``while turns.closed: await turns.opened()``, ``turns.running += 1``, the run, ``turns.leave()``; or all of it
    inside ``async with turns.alone()``.
    """

    def __init__(self) -> None:
        self.running = 0
        self.closed = False
        self._open, self._idle = asyncio.Event(), asyncio.Event()
        self._one = asyncio.Lock()

    async def opened(self) -> None:
        """Wait until nothing runs alone any more."""
        await self._open.wait()

    def leave(self) -> None:
        """Count a run as over."""
        self.running -= 1
        if self.closed and not self.running:
            self._idle.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Let nothing begin, wait until nothing runs, and keep it so inside the block."""
        async with self._one:
            self.closed = True
            self._open.clear()
            try:
                while self.running:
                    self._idle.clear()
                    await self._idle.wait()
                yield
            finally:
                self.closed = False
                self._open.set()

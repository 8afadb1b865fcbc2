"""Work that no call waits for: kept, bounded in number, and given a moment at the end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

MAX_TASKS = 1000
END_SECONDS = 0.5
"""What is still under way at the end gets that long, so that no lease is left behind."""


class OwnedTasks:
    """The tasks of one event loop that belong to no call; each ends by itself within its own deadline."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any] | None:
        """Run *work* and return its task; None and not run if too much is under way already."""
        if len(self._tasks) >= MAX_TASKS:
            work.close()
            return None
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Wait a moment for what is under way, then cancel it."""
        mine = {task for task in self._tasks if task.get_loop() is asyncio.get_running_loop()}
        if mine:
            _, late = await asyncio.wait(mine, timeout=END_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(*mine, return_exceptions=True)

"""Lanes of single events where others wait for their batch: a source takes more at a time then than are to run."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import AbstractAsyncContextManager, nullcontext

from .records import Record


class SingleLanes:
    """
    Up to *size* lanes for each partition or stream that events are fetched from, in the order of asking.

    Pushed events have none: whoever pushes them has their order, and calls have limits of their own.
    """

    def __init__(self, size: int) -> None:
        self._lanes: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(size))

    def of(self, record: Record) -> AbstractAsyncContextManager[None]:
        """Return what is entered while *record* is handled."""
        if record.system == "http":
            return nullcontext()
        return self._lanes[record.place]

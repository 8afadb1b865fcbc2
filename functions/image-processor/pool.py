"""Work on a bounded number of images at a time, on all cores, off the event loop."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Event
from typing import TypeVar

from faasbase import Problem

from .limits import Limits

T = TypeVar("T")


class StoppedError(Exception):
    """The work was given up because its caller has gone."""


class Pool:
    """
    Threads for images; Pillow gives the interpreter lock back while it works, so that each of them fills a core.

    At most ``workers`` images are worked on, of ``max_pixels`` together: what a machine with enough cores for four
    photographs does not have is memory for four posters.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._executor = ThreadPoolExecutor(limits.workers, "image")
        self._turn, self._changed = asyncio.Lock(), asyncio.Event()
        self._calls = self._running = self._pixels = 0

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Hold a place in the queue while the body runs; 429 if there is none, before the upload takes memory."""
        if self._calls >= self._limits.workers + self._limits.queue:
            raise self._busy()
        self._calls += 1
        try:
            yield
        finally:
            self._calls -= 1

    async def run(self, pixels: int, work: Callable[[Event], T]) -> T:
        """
        Return what *work* returns, which holds *pixels* in memory; once the event it gets is set it should stop.

        Calls wait for their turn in the order in which they came, and then get 429.  When a caller is cancelled its
        place is free once the work has really ended.
        """
        try:
            async with asyncio.timeout(self._limits.wait_seconds):
                await self._enter(pixels)
        except TimeoutError:
            raise self._busy() from None
        stop, loop = Event(), asyncio.get_running_loop()
        future = self._executor.submit(work, stop)
        # On the thread's own future: asyncio's one is done as soon as it is cancelled, with the thread still at work.
        future.add_done_callback(lambda _: self._left_in_thread(loop, pixels))
        try:
            return await asyncio.wrap_future(future)
        finally:
            stop.set()

    def close(self) -> None:
        """Let the threads end."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _enter(self, pixels: int) -> None:
        async with self._turn:
            while not self._fits(pixels):
                self._changed.clear()
                await self._changed.wait()
            self._running += 1
            self._pixels += pixels

    def _fits(self, pixels: int) -> bool:
        room = self._running == 0 or self._pixels + pixels <= self._limits.max_pixels
        return room and self._running < self._limits.workers

    def _left_in_thread(self, loop: asyncio.AbstractEventLoop, pixels: int) -> None:
        # A loop that is closed has nobody left who waits for a place.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(self._leave, pixels)

    def _leave(self, pixels: int) -> None:
        self._running -= 1
        self._pixels -= pixels
        self._changed.set()

    def _busy(self) -> Problem:
        detail = f"{self._limits.workers} images are being worked on and others wait"
        return Problem(429, detail, retry_after_seconds=max(1.0, self._limits.wait_seconds / 5))

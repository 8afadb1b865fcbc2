"""Work on a bounded number of images at a time, on all cores, off the event loop."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Event
from typing import Any, TypeVar

from faasbase import Problem

from .limits import Limits

T = TypeVar("T")
R = TypeVar("R")


class StoppedError(Exception):
    """The work was given up because its caller has gone."""


class Pool:
    """
    Threads for images; Pillow gives the interpreter lock back while it works, so that each of them fills a core.

    At most ``workers`` images are worked on, of ``max_pixels`` together: what a machine with enough cores for four
    photographs does not have is memory for four posters.  The bodies of all calls have ``uploads_bytes`` together.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._executor = ThreadPoolExecutor(limits.workers, "image")
        self._headers = ThreadPoolExecutor(1, "image-header")
        self._turn, self._changed = asyncio.Lock(), asyncio.Event()
        self._calls = self._running = self._pixels = self._upload_bytes = 0

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

    def count(self, upload_bytes: int) -> None:
        """Add *upload_bytes* to those that are in memory; 429 if there is no room for them."""
        if self._upload_bytes + upload_bytes > self._limits.uploads_bytes:
            raise self._busy()
        self._upload_bytes += upload_bytes

    def uncount(self, upload_bytes: int) -> None:
        """Take *upload_bytes* off, which are not in memory any more."""
        self._upload_bytes -= upload_bytes

    async def look(self, work: Callable[[], T]) -> T:
        """Return what *work* returns, which looks at one header; one at a time, since headers can be large as well."""
        return await asyncio.get_running_loop().run_in_executor(self._headers, work)

    async def run(self, pixels: int, work: Callable[[Event], T], finish: Callable[[T], Awaitable[R]]) -> R:
        """
        Return what *finish* makes of the result of *work*, which holds *pixels* in memory.

        Calls wait for their turn in the order in which they came, and then get 429.  A place is free once the result
        is finished with; when a caller is cancelled, *work* finds its event set and the place is free at its real end.
        """
        try:
            async with asyncio.timeout(self._limits.wait_seconds):
                await self._enter(pixels)
        except TimeoutError:
            raise self._busy() from None
        stop = Event()
        future = self._executor.submit(work, stop)
        try:
            return await finish(await asyncio.wrap_future(future))
        finally:
            stop.set()
            self._leave_after(future, pixels)

    def close(self) -> None:
        """Let the threads end."""
        for executor in (self._executor, self._headers):
            executor.shutdown(wait=False, cancel_futures=True)

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

    def _leave_after(self, future: Future[Any], pixels: int) -> None:
        """Free the place when the thread's own *future* is done: asyncio's is, with the thread still at work."""
        if future.done():
            self._leave(pixels)
            return
        loop = asyncio.get_running_loop()

        def left_in_thread(_: Future[Any]) -> None:
            # A loop that is closed has nobody left who waits for a place.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._leave, pixels)

        future.add_done_callback(left_in_thread)

    def _leave(self, pixels: int) -> None:
        self._running -= 1
        self._pixels -= pixels
        self._changed.set()

    def _busy(self) -> Problem:
        detail = f"{self._limits.workers} images are being worked on and others wait"
        return Problem(429, detail, retry_after_seconds=max(1.0, self._limits.wait_seconds / 5))

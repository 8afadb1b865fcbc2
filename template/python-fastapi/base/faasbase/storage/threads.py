"""Run blocking file work off the event loop, and never leave it behind."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from anyio import CancelScope

T = TypeVar("T")


class Threads:
    """
    A few threads of one owner.

    They are not the ones that run handlers: those may all be waiting for the work that is to be done here.
    """

    def __init__(self, count: int, name: str) -> None:
        self._executor = ThreadPoolExecutor(count, name)

    async def run(self, work: Callable[[], T]) -> T:
        """
        Return what *work* returns.

        A caller who is cancelled goes only when *work* has ended: it may hold a file that the caller is about to close.
        """
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        cancelled: asyncio.CancelledError | None = None
        with CancelScope(shield=True):
            while not future.done():
                try:
                    await asyncio.wait({future})
                except asyncio.CancelledError as exc:
                    cancelled = exc
        if cancelled is not None:
            # Marks an error as seen; the cancellation is what the caller hears of.
            future.exception()
            raise cancelled
        return future.result()

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

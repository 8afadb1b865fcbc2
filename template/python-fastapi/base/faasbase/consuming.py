"""The life of those who fetch events: started before the first call is answered, stopped at SIGTERM, then drained."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from .errors import FaasError, SettingError
from .loading import Handler
from .settings import Settings

if TYPE_CHECKING:
    from .events.sources import Source

_LOOK_SECONDS = 0.1

logger = logging.getLogger("faasbase.events")


class Consumers:
    """The sources of a function's events, none for most; *close* ends what has handled their events."""

    def __init__(
        self,
        sources: Sequence[Source] = (),
        close: Callable[[], Awaitable[None]] | None = None,
        *,
        start_seconds: float = 0.0,
    ) -> None:
        self._sources, self._close, self._start_seconds = sources, close, start_seconds
        self._running: list[asyncio.Task[None]] = []
        self._drained = False

    @property
    def active(self) -> bool:
        """Whether there is any source."""
        return bool(self._sources)

    async def start(self) -> None:
        """
        Start all sources side by side, and then fetch.

        Raises:
            SettingError: One does not start; none is left connected.
        """
        starting = [asyncio.create_task(self._start(source), name="events start") for source in self._sources]
        try:
            await asyncio.gather(*starting)
        except BaseException:
            for task in starting:
                task.cancel()
            await asyncio.gather(*starting, return_exceptions=True)
            await self.drain(0.0)
            raise
        self._running = [asyncio.create_task(source.run(), name="events") for source in self._sources]

    async def failed(self) -> FaasError:
        """Wait until a source has ended without being told, and return why; for ever where none does."""
        if not self._running:
            await asyncio.Event().wait()
        done, _ = await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        error = next((task.exception() for task in done if not task.cancelled()), None)
        if isinstance(error, FaasError):
            return error
        failure = FaasError("events are no longer fetched")
        failure.__cause__ = error
        return failure

    async def drain(self, seconds: float) -> None:
        """Fetch nothing more, let what is in flight end within *seconds*, settle it, and leave; never raises."""
        if self._drained:
            return
        self._drained = True
        for source in self._sources:
            source.stop()
        drained = await asyncio.gather(*(source.drain(seconds) for source in self._sources), return_exceptions=True)
        for task in self._running:
            task.cancel()
        ended = await asyncio.gather(*self._running, return_exceptions=True)
        if self._close is not None:
            await self._close()
        for error in (*drained, *ended):
            if isinstance(error, Exception):
                logger.error("a source of events did not end well", exc_info=error)

    async def _start(self, source: Source) -> None:
        try:
            async with asyncio.timeout(self._start_seconds):
                await source.start()
        except TimeoutError as exc:
            reason = f"nobody there has answered within {self._start_seconds:g} s (EVENTS_START_TIMEOUT)"
            raise SettingError("EVENTS_URL", reason) from exc


async def finished(draining: asyncio.Task[None], until: float, hurried: Callable[[], bool]) -> None:
    """Wait for the end of *draining* until the clock of `time.monotonic` shows *until*, or somebody is *hurried*."""
    while not draining.done() and not hurried():
        if time.monotonic() > until:
            logger.warning("events were left to be repeated: what handles them did not end in time")
            break
        await asyncio.wait({draining}, timeout=_LOOK_SECONDS)
    draining.cancel()
    await asyncio.gather(draining, return_exceptions=True)


def open_consumers(handler: Handler, settings: Settings) -> Consumers:
    """
    Return those who fetch the function's events, not started yet.

    Raises:
        SettingError: ``EVENTS_URL`` cannot be used, or there is nothing to fetch for.
    """
    if not settings.events.pulled:
        return Consumers()
    if not handler.events:
        raise SettingError("EVENTS_URL", "names a source of events, and handler.py has no @on_event handler")
    from .events.sources import open_sources

    sources, processor = open_sources(handler.events, settings)
    return Consumers(sources, processor.close, start_seconds=settings.events.start_timeout)

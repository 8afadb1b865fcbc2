"""
One call to ourselves that of-watchdog waits for, while events are still being handled after SIGTERM.

It knows of HTTP calls only, and would end the process as soon as the last of them is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_urlsafe
from typing import TYPE_CHECKING, Any

from .consuming import Consumers
from .settings import Settings

if TYPE_CHECKING:
    from .watchdog import Watchdog

_CONNECT_SECONDS = 1.0


class HeldCall:
    """The call, sent to of-watchdog on *port* of this machine and answered when it is let go."""

    def __init__(self, port: int) -> None:
        self._port = port
        # Nobody else may keep the process alive.
        self.path = f"/_/draining/{token_urlsafe(16)}"
        self._released = asyncio.Event()
        self._caller: asyncio.Task[None] | None = None

    def hold(self) -> None:
        """Send the call."""
        self._caller = asyncio.create_task(self._call(), name="held call")

    async def release(self) -> None:
        """Let the call be answered, and wait a moment for that."""
        self._released.set()
        if self._caller is not None:
            _, late = await asyncio.wait({self._caller}, timeout=_CONNECT_SECONDS)
            for task in late:
                task.cancel()
            await asyncio.gather(self._caller, return_exceptions=True)

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer the call, as ASGI has it, once it is let go."""
        await self._released.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def _call(self) -> None:
        # Without of-watchdog there is nobody to hold, and nothing to tell anyone.
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
            try:
                writer.write(f"GET {self.path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                await reader.read(1)
            finally:
                writer.close()


@asynccontextmanager
async def held_call(app: Watchdog, settings: Settings, consumers: Consumers) -> AsyncIterator[None]:
    """Have of-watchdog wait for a call as long as the block lasts, where it is there and events are fetched."""
    if not (settings.behind_watchdog and consumers.active):
        yield
        return
    app.held_call = held = HeldCall(settings.watchdog_port)
    held.hold()
    try:
        yield
    finally:
        await held.release()

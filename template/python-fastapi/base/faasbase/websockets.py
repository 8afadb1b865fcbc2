"""uvicorn's WebSocket protocol, with a handler that does not outlive its client, and a client that has to read."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from .protocol import Cancellable

# A handler that receives hears of the end and may tidy up; one that only sends would go on for ever.
_GOODBYE_SECONDS = 1.0


class FunctionWebSocket(WebSocketsSansIOProtocol):
    """
    One WebSocket.

    Its handler is cancelled when it has not ended by itself soon after its client has gone, and a client that reads
    nothing for ``write_timeout`` is cut off.
    """

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        app: Any = Cancellable(self.app, self)
        self.app = app
        self._task: asyncio.Task[None] | None = None
        self._write_deadline: asyncio.TimerHandle | None = None

    async def run_asgi(self) -> None:
        self._task = asyncio.current_task()
        await super().run_asgi()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)
        if self._task is not None and not self._task.done():
            self.loop.call_later(_GOODBYE_SECONDS, self._task.cancel)

    def pause_writing(self) -> None:
        super().pause_writing()
        seconds = getattr(self.config.http, "write_timeout", 0.0)
        self._write_deadline = self._write_deadline or self.loop.call_later(seconds, self.transport.abort)

    def resume_writing(self) -> None:
        self._disarm()
        super().resume_writing()

    def _disarm(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

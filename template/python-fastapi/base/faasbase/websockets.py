"""uvicorn's WebSocket protocol, with a handler that does not outlive its client."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

# A handler that receives hears of the end and may tidy up; one that only sends would go on for ever.
_GOODBYE_SECONDS = 1.0


class FunctionWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket; its handler is cancelled when it has not ended by itself soon after its client has gone."""

    async def run_asgi(self) -> None:
        self._task = asyncio.current_task()
        try:
            await super().run_asgi()
        except asyncio.CancelledError:
            if not self.disconnected:
                raise

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        task = getattr(self, "_task", None)
        if task is not None and not task.done():
            self.loop.call_later(_GOODBYE_SECONDS, task.cancel)

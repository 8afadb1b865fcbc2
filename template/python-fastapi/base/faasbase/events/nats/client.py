"""The library's client, with what it lacks: it outlives messages that are no UTF-8, and never signs in without TLS."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import SecureConnWantedError

logger = logging.getLogger("faasbase.events")

CONNECT_SECONDS = 5.0
_CLOSE_SECONDS = 1.0
_PING_SECONDS = 10
"""A server that is silent for three of these is lost."""


class Message(Msg):
    """A message whose headers are there as they came, too."""

    raw_headers: bytes = b""


class _Headers(dict[str, str]):
    """Headers as the library reads them, and the block that they came in."""

    raw: bytes = b""


class NatsClient(Client):
    """A client that is used for one connection: whoever needs another makes another client."""

    msg_class = Message

    def __init__(self, *, tls: bool) -> None:
        super().__init__()
        self._needs_tls = tls

    async def start(self, servers: list[str], name: str, **given: Any) -> None:
        """Connect to one of *servers*; raises what the library does, the connection being closed then."""
        try:
            await self.connect(
                servers,
                name=name,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=CONNECT_SECONDS,  # type: ignore[arg-type]
                ping_interval=_PING_SECONDS,
                **given,
            )
        except BaseException:
            await self.end()
            raise

    async def end(self) -> None:
        """Send what is on its way and disconnect, within a moment: after a failed handshake the library never ends."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self.close()
        except (NatsError, OSError, TimeoutError) as exc:
            logger.debug("a connection to NATS did not end well: %s", exc)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if self._needs_tls and initial_connection:
            if not (info.get("tls_required") or info.get("tls_available")):
                raise SecureConnWantedError
            # The library asks for TLS only where it must.
            info["tls_required"] = True
        await super()._process_info(info, initial_connection)

    async def _process_headers(self, headers: Any) -> dict[str, str] | None:
        if not headers:
            return None
        try:
            found = _Headers(await super()._process_headers(headers) or {})
        except (IndexError, ValueError):
            # Its reading task would end, and with it every later message.
            found = _Headers()
        found.raw = bytes(headers)
        return found

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        message = Message(
            _client=self,
            subject=subject.decode("utf-8", "backslashreplace"),
            reply=reply.decode("utf-8", "backslashreplace"),
            data=data,
            headers=headers,
            _sid=sid,
        )
        if isinstance(headers, _Headers):
            message.raw_headers = headers.raw
        return message

"""
Requests to one server over connections that are kept: a bounded number, and none that has been idle for long.

The parser is h11, as for `fetching`; what is posted here goes to a place of the settings and not of a stranger's, so
that there is no check of addresses, and redirects are answers like others.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import h11

from .place import HttpPlace

_MAX_CONNECTIONS = 16
_IDLE_SECONDS = 10.0
"""A kept connection is used again for so long: servers close theirs after a while, and a request may cross that."""
_CONNECT_SECONDS = 3.0
_UNTAKEN_SECONDS = 3.0
"""How long what was sent may wait for the other host: one that has vanished takes nothing, one that is slow does."""
_READ_BYTES = 16 * 1024
_MAX_HEAD_BYTES = 64 * 1024
_MAX_BODY_BYTES = 256 * 1024
"""Of an answer, which nobody reads; behind longer ones the connection is closed."""
_REST_SECONDS = 1.0
_MAX_INTERIM = 8
_MAX_WAITING = 1000


class Reply(NamedTuple):
    """What of an answer matters to whoever has posted a message."""

    status: int
    retry_after_seconds: float | None


class LostError(Exception):
    """There is no answer, or none that can be read: whether the message has arrived is not known."""


class HttpConnections:
    """The connections to *place*; *context* is that of TLS."""

    def __init__(self, place: HttpPlace, context: ssl.SSLContext | None) -> None:
        self._place, self._context = place, context
        self._free = asyncio.Semaphore(_MAX_CONNECTIONS)
        self._waiting = 0
        self._idle: list[tuple[_Connection, float]] = []
        self._busy: set[_Connection] = set()

    async def post(self, path: str, headers: Sequence[tuple[str, str]], body: bytes) -> Reply:
        """
        Post *body* and return what is answered; waits for a connection that is free, and has no deadline of its own.

        Raises:
            LostError: There is no answer.
            ssl.SSLCertVerificationError: The server is not who it should be.
            ValueError: A header cannot be sent.
        """
        request = self._request(path, headers, body)
        if self._waiting >= _MAX_WAITING:
            raise LostError(f"{_MAX_WAITING} messages wait already")
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._posted(request, body)
        finally:
            self._free.release()

    async def close(self) -> None:
        """Hang up; what is still under way is lost."""
        for connection in self._busy:
            connection.abort()
        self._drop_idle()

    async def _posted(self, request: h11.Request, body: bytes) -> Reply:
        # A server may close a connection in the very moment that it is used again: then another one is.
        while (kept := self._kept()) is not None:
            try:
                return await self._exchanged(kept, request, body)
            except LostError:
                if kept.answering:
                    raise
                # Whatever has taken its server away is likely to have taken it from the others.
                self._drop_idle()
        return await self._exchanged(await self._connected(), request, body)

    async def _exchanged(self, connection: _Connection, request: h11.Request, body: bytes) -> Reply:
        self._busy.add(connection)
        try:
            reply = await connection.exchange(request, body)
        except BaseException:
            connection.abort()
            raise
        finally:
            self._busy.discard(connection)
        if connection.reusable:
            self._idle.append((connection, asyncio.get_running_loop().time()))
        else:
            connection.abort()
        return reply

    def _kept(self) -> _Connection | None:
        """Return the connection that was used last; older ones are given up first."""
        oldest = asyncio.get_running_loop().time() - _IDLE_SECONDS
        while self._idle:
            connection, since = self._idle.pop()
            if since >= oldest and connection.alive:
                return connection
            connection.abort()
        return None

    def _drop_idle(self) -> None:
        for connection, _ in self._idle:
            connection.abort()
        self._idle.clear()

    async def _connected(self) -> _Connection:
        place = self._place
        server_name = place.host if self._context else None
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(
                    place.host, place.port, limit=_READ_BYTES, ssl=self._context, server_hostname=server_name
                )
        except ssl.SSLCertVerificationError:
            raise
        except (OSError, UnicodeError) as exc:
            raise LostError(f"no connection ({_name(exc)})") from exc
        _bound(writer.get_extra_info("socket"))
        return _Connection(reader, writer)

    def _request(self, path: str, headers: Sequence[tuple[str, str]], body: bytes) -> h11.Request:
        ours = [("Host", self._place.authority), ("Content-Length", str(len(body)))]
        try:
            encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in (*ours, *headers)]
            return h11.Request(method="POST", target=path, headers=encoded)
        except (h11.LocalProtocolError, UnicodeError):
            # Their own messages repeat the header, which may be a secret.
            raise ValueError("a header has a name or value that cannot be sent") from None


class _Connection:
    """One connection, and the messages that go over it one after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self.answering = False
        """Whether something has come back since the last request."""

    @property
    def alive(self) -> bool:
        """Whether the server has not closed it, as far as is known."""
        return not (self._reader.at_eof() or self._writer.is_closing())

    @property
    def reusable(self) -> bool:
        """Whether another request may follow."""
        return self._http.our_state is h11.IDLE and self.alive

    def abort(self) -> None:
        """Close it at once: a polite close would wait for the other side."""
        self._writer.transport.abort()

    async def exchange(self, request: h11.Request, body: bytes) -> Reply:
        """Send *request* and return its answer, its body read and forgotten."""
        self.answering = False
        try:
            parts = [self._http.send(part) for part in (request, h11.Data(data=body), h11.EndOfMessage())]
            self._writer.writelines(filter(None, parts))
            await self._writer.drain()
            reply = await self._head()
        except (OSError, EOFError, h11.RemoteProtocolError) as exc:
            raise LostError(f"the connection broke ({_name(exc)})") from exc
        # The status has said it all: what breaks from here on costs no more than the connection.
        with suppress(OSError, EOFError, h11.RemoteProtocolError, TimeoutError):
            async with asyncio.timeout(_REST_SECONDS):
                await self._rest()
        return reply

    async def _head(self) -> Reply:
        for _ in range(_MAX_INTERIM):
            event = await self._event()
            if isinstance(event, h11.Response):
                return Reply(event.status_code, _retry_after(event.headers))
            if not isinstance(event, h11.InformationalResponse):
                break
        raise LostError("no answer to the request")

    async def _rest(self) -> None:
        """Read what is left of the answer, if it is short, so that the connection can be used again."""
        left = _MAX_BODY_BYTES
        while left > 0 and isinstance(event := await self._event(), h11.Data):
            left -= len(event.data)
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()

    async def _event(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            data = await self._reader.read(_READ_BYTES)
            self.answering = self.answering or bool(data)
            self._http.receive_data(data)
        return event


def _bound(connected: socket.socket) -> None:
    """Have the system give up a connection whose other host takes nothing any more, where it can."""
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(_UNTAKEN_SECONDS * 1000))


def _retry_after(headers: Iterable[tuple[bytes, bytes]]) -> float | None:
    """Return the seconds in ``Retry-After``; None where there is none, or a date."""
    given = next((value for name, value in headers if name == b"retry-after"), b"")
    return float(given) if given.isdigit() and len(given) < 10 else None


def _name(exc: BaseException) -> str:
    return getattr(exc, "strerror", None) or type(exc).__name__

"""
A bare HTTP/1.1 client over asyncio streams.

The tests of the process need what client libraries hide: the exact bytes sent, when each piece of the answer arrived,
and connections that are left half-way.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

HOST = "127.0.0.1"
HEAD_LIMIT = 1 << 20


class WireError(Exception):
    """The peer closed the connection early or sent something that is not HTTP."""


@dataclass(frozen=True)
class Piece:
    """One chunk of an answer's body, and when it arrived (seconds since the request was sent)."""

    at_seconds: float
    data: bytes


@dataclass(frozen=True)
class Answer:
    """An answer as it came over the wire; header names are lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    pieces: tuple[Piece, ...] = ()
    seconds: float = 0.0

    @property
    def body(self) -> bytes:
        """Return the whole body."""
        return b"".join(piece.data for piece in self.pieces)

    @property
    def text(self) -> str:
        """Return the body as text, whatever bytes it holds."""
        return self.body.decode(errors="replace")

    def json(self) -> Any:
        """Return the body parsed as JSON."""
        return json.loads(self.body)

    def header(self, name: str) -> str | None:
        """Return the first header called *name*, or None."""
        return next((v for n, v in self.headers if n == name.lower()), None)


@dataclass
class Connection:
    """One open connection; requests go out on it one after the other."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    sent_at: float = field(default_factory=time.monotonic)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def send(self, data: bytes) -> None:
        """Write *data* as it is and take the time of it."""
        self.sent_at = time.monotonic()
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, *, method: str = "GET", timeout_seconds: float = 10.0) -> Answer:
        """Read one whole answer to a request made with *method*; interim 1xx answers are passed over."""
        async with asyncio.timeout(timeout_seconds):
            status, headers = await self.head()
            while 100 <= status < 200 and status != 101:
                status, headers = await self.head()
            pieces = [p async for p in self.pieces(method, status, headers)]
        return Answer(status, headers, tuple(pieces), time.monotonic() - self.sent_at)

    async def head(self) -> tuple[int, tuple[tuple[str, str], ...]]:
        """Read a status line and its headers."""
        try:
            raw = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as error:
            raise WireError(f"closed after {error.partial!r}") from error
        lines = raw.decode("latin-1").split("\r\n")
        version, _, rest = lines[0].partition(" ")
        if not version.startswith("HTTP/1."):
            raise WireError(f"not HTTP: {lines[0]!r}")
        fields = [line.partition(":") for line in lines[1:] if line]
        return int(rest[:3]), tuple((n.lower(), v.strip()) for n, _, v in fields)

    async def pieces(self, method: str, status: int, headers: tuple[tuple[str, str], ...]) -> AsyncIterator[Piece]:
        """Yield the body as it arrives, by the framing that the headers announce."""
        names = dict(headers)
        if method == "HEAD" or status in {101, 204, 304}:
            return
        if names.get("transfer-encoding", "").lower() == "chunked":
            source = self._chunks()
        elif "content-length" in names:
            source = self._counted(int(names["content-length"]))
        else:
            source = self._until_closed()
        async for data in source:
            yield Piece(time.monotonic() - self.sent_at, data)

    async def _chunks(self) -> AsyncIterator[bytes]:
        try:
            while size := int((await self.reader.readuntil(b"\r\n")).partition(b";")[0], 16):
                yield (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readexactly(2)
        except asyncio.IncompleteReadError as error:
            raise WireError("the chunks end before the last one") from error

    async def _counted(self, length: int) -> AsyncIterator[bytes]:
        while length:
            data = await self.reader.read(min(length, 1 << 16))
            if not data:
                raise WireError(f"{length} bytes of the body are missing")
            length -= len(data)
            yield data

    async def _until_closed(self) -> AsyncIterator[bytes]:
        while data := await self.reader.read(1 << 16):
            yield data

    def close(self) -> None:
        """Close at once, without a goodbye."""
        self.writer.transport.abort()


async def connect(port: int, host: str = HOST, *, timeout_seconds: float = 5.0) -> Connection:
    """Open a connection to *port*, on this machine unless told otherwise."""
    async with asyncio.timeout(timeout_seconds):
        reader, writer = await asyncio.open_connection(host, port, limit=HEAD_LIMIT)
    return Connection(reader, writer)


def request_bytes(
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    *,
    close: bool = False,
) -> bytes:
    """Build a request; ``Host`` and, where there is a body, ``Content-Length`` are set if absent."""
    given = dict(headers or {})
    names = {name.lower() for name in given}
    if "host" not in names:
        given["Host"] = HOST
    if body and not names & {"content-length", "transfer-encoding"}:
        given["Content-Length"] = str(len(body))
    if close and "connection" not in names:
        given["Connection"] = "close"
    lines = [f"{method} {path} HTTP/1.1", *(f"{n}: {v}" for n, v in given.items())]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


async def call(
    port: int,
    path: str = "/",
    *,
    host: str = HOST,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    timeout_seconds: float = 10.0,
) -> Answer:
    """Make one call on a connection of its own."""
    async with opened(port, host) as connection:
        await connection.send(request_bytes(method, path, headers, body, close=True))
        return await connection.answer(method=method, timeout_seconds=timeout_seconds)


@asynccontextmanager
async def opened(port: int, host: str = HOST) -> AsyncIterator[Connection]:
    """Open a connection and close it at the end."""
    connection = await connect(port, host)
    try:
        yield connection
    finally:
        connection.close()

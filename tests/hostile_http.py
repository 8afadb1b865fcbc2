"""An HTTP server that does to its clients what the worst ones on the internet do, and remembers who asked for what."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Behaviour = Callable[["Asked", asyncio.StreamWriter], Awaitable[None]]


@dataclass(frozen=True)
class Asked:
    """A request that has arrived."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class HostileServer:
    """Answers by path; what is not in ``paths`` is 404."""

    host: str
    port: int
    scheme: str
    paths: dict[str, Behaviour] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    open: int = 0
    """Connections that have not ended yet."""
    sent_bytes: int = 0
    """By the behaviours that never end."""

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = head[0].split(" ")
            headers = dict(line.lower().split(": ", 1) for line in head[1:-2])
            self.asked.append(Asked(method, path, headers))
            behave = self.paths.get(path.partition("?")[0], answer(b"no such page", 404))
            await behave(self.asked[-1], writer)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def hostile_server(
    host: str = "127.0.0.1", *, port: int = 0, context: ssl.SSLContext | None = None
) -> AsyncIterator[HostileServer]:
    """Run a server on a port that the system picks, until the block ends."""
    running: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        served.open += 1
        try:
            await served.serve(reader, writer)
        finally:
            running.discard(task)
            served.open -= 1
            writer.transport.abort()

    listening = await asyncio.start_server(serve, host, port, ssl=context)
    served = HostileServer(host, listening.sockets[0].getsockname()[1], "https" if context else "http")
    try:
        yield served
    finally:
        listening.close()
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def raw(data: bytes) -> Behaviour:
    """Send *data* and close."""

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return behave


def answer(body: bytes = b"", status: int = 200, /, **headers: str) -> Behaviour:
    """Answer with *body*; underscores in names of *headers* are hyphens."""
    lines = {"content-length": str(len(body)), **{n.replace("_", "-"): v for n, v in headers.items()}}
    head = f"HTTP/1.1 {status} Said\r\n" + "".join(f"{n}: {v}\r\n" for n, v in lines.items()) + "\r\n"
    return raw(head.encode("utf-8") + body)


def redirect(location: str, status: int = 302) -> Behaviour:
    return answer(b"", status, location=location)


def packed(body: bytes, encoding: str = "gzip", members: int = 1) -> Behaviour:
    """Answer with *body*, which gzip makes small, *members* times."""
    return answer(gzip.compress(body) * members, content_encoding=encoding)


def endless(head: bytes, piece: bytes, seconds: float = 0.0, server: HostileServer | None = None) -> Behaviour:
    """Send *head*, then *piece* for ever, with *seconds* between."""

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(piece)
            if server is not None:
                server.sent_bytes += len(piece)
            await writer.drain()
            await asyncio.sleep(seconds)

    return behave


async def silent(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Take the request and say nothing."""
    await asyncio.sleep(60)


async def reset(asked: Asked, writer: asyncio.StreamWriter) -> None:
    """Begin an answer, then reset the connection."""
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
    await writer.drain()
    raw_socket: socket.socket = writer.get_extra_info("socket")
    raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()

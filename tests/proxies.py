"""A proxy in front of a real server that misbehaves in ways that the server would not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any


class AnswersProxy:
    """
    A TCP proxy on a port of its own in front of *port*: passes everything on, until it is told otherwise.

    `cut_after` bytes of answers it closes the connection, once for each number; `refuse` times it answers 503 itself;
    after `hang`, or a request that holds `hang_after`, it passes requests on and no answers back.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.cut_after: list[int] = []
        self.refuse = 0
        self._flows = asyncio.Event()
        self._flows.set()
        self.hang_after: bytes | None = None
        self.url = ""
        self._tasks: set[asyncio.Task[Any]] = set()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run it on a port that the system picks."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://localhost:{server.sockets[0].getsockname()[1]}"
        try:
            yield
        finally:
            server.close()
            tasks = tuple(self._tasks)
            self.hang_up()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def hanging(self) -> bool:
        return not self._flows.is_set()

    @property
    def open_connections(self) -> int:
        return len(self._tasks)

    def hang_up(self) -> None:
        """Close all connections; those that come after are what it has been told applies to."""
        for task in self._tasks:
            task.cancel()

    def hang(self, hanging: bool = True) -> None:
        """Pass no answers back from now on, or everything again."""
        if hanging:
            self._flows.clear()
        else:
            self._flows.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            if self.refuse:
                self.refuse -= 1
                await self._answer_503(reader, writer)
            else:
                await self._pass_on(reader, writer)
        except (OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _answer_503(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
        await reader.readexactly(int(lengths[0]) if lengths else 0)
        body = b"<Error><Code>SlowDown</Code><Message>later</Message></Error>"
        head = b"HTTP/1.1 503 Slow Down\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head + body)
        await writer.drain()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._port)
        left = self.cut_after.pop(0) if self.cut_after else None
        there = asyncio.create_task(self._pass_requests(reader, upstream_writer))
        back = asyncio.create_task(self._pass_answers(upstream_reader, writer, left))
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
            upstream_writer.close()

    async def _pass_requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(64 * 1024):
            if self.hang_after and self.hang_after in data:
                self.hang_after = None
                self.hang()
            writer.write(data)
            await writer.drain()

    async def _pass_answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, left: int | None) -> None:
        while data := await reader.read(64 * 1024):
            await self._flows.wait()
            writer.write(data[:left])
            await writer.drain()
            if left is not None and (left := left - len(data)) <= 0:
                return

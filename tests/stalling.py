"""A TCP proxy of the tests' own: what is sent through it can be passed, delayed, swallowed or cut."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

_CHUNK_BYTES = 64 * 1024


class StallingProxy:
    """
    Stands in front of the server at *target* on a port of its own, for the event loop that it is entered on.

    ``delay_seconds`` holds back what the server answers; ``black_hole`` swallows everything, new connections too,
    which are taken and never answered; `cut` resets what is there.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self.delay_seconds = 0.0
        self.connections = 0
        """How many connections were made so far."""
        self._passing = asyncio.Event()
        self._passing.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def black_hole(self) -> bool:
        return not self._passing.is_set()

    @black_hole.setter
    def black_hole(self, swallow: bool) -> None:
        (self._passing.clear if swallow else self._passing.set)()

    def cut(self) -> None:
        """Reset all connections."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        self.connections += 1
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._join(reader, writer)
        finally:
            writer.transport.abort()
            self._writers.discard(writer)
            self._tasks.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passing.wait()
        server_reader, server_writer = await asyncio.open_connection(*self._target)
        self._writers.add(server_writer)
        try:
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._carry(reader, server_writer, delayed=False))
                ways.create_task(self._carry(server_reader, writer, delayed=True))
        except ExceptionGroup as group:
            raise ConnectionError from group
        finally:
            server_writer.transport.abort()
            self._writers.discard(server_writer)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, delayed: bool) -> None:
        while chunk := await reader.read(_CHUNK_BYTES):
            if delayed and self.delay_seconds:
                await asyncio.sleep(self.delay_seconds)
            await self._passing.wait()
            writer.write(chunk)
            await writer.drain()
        raise ConnectionError("one side has ended")

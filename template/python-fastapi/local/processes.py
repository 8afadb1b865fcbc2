"""One process of a function: started, asked whether it is ready, its output read, stopped with all it started."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import httpx2

from output import Output
from ports import ADDRESS

READY_SECONDS = 60.0
"""How long a process may take until its ``/_/ready`` says so."""
READY_POLL_SECONDS = (0.05, 0.5)
"""The first wait between two questions, and the longest: each is half as long again as the one before."""
OUTPUT_SECONDS = 1.0
"""How long after the end of a process its last output is waited for."""
PIECE_BYTES = 64 * 1024
LONGEST_LINE_BYTES = 1024 * 1024
NO_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=5.0)


class StartFailedError(Exception):
    """A process ended, or was not ready in time; *shown* is what the terminal shows of the reason."""

    def __init__(self, reason: str, shown: str) -> None:
        self.shown = shown
        super().__init__(reason)


class SupersededError(Exception):
    """The code changed while its process was starting."""


class Process:
    """A running ``python index.py``; made by `start_process`."""

    def __init__(
        self,
        child: asyncio.subprocess.Process,
        folder: Path,
        port: int,
        metrics_port: int,
        output: Output,
    ) -> None:
        self.pid = child.pid
        self.folder = folder
        self.port = port
        self.metrics_url = f"http://{ADDRESS}:{metrics_port}/metrics"
        self.output = output
        self.started = time.monotonic()
        # Each process has its own connections: none leads to the process that it replaced.
        self.transport = httpx2.AsyncHTTPTransport(limits=NO_LIMITS, trust_env=False)
        self._child = child
        self._reading: asyncio.Task[None] | None = None

    def read_output(self, pipe: IO[bytes]) -> None:
        """Hand on every line that arrives in *pipe*, from now to the end of the process."""
        self._reading = asyncio.create_task(self._read_output(pipe))

    async def ready(self, superseded: asyncio.Event) -> None:
        """
        Wait until ``/_/ready`` answers 200.

        Raises:
            StartFailedError: the process ended, or `READY_SECONDS` have passed.
            SupersededError: *superseded* was set before.
        """
        answer = "no answer"
        wait, longest = READY_POLL_SECONDS
        while time.monotonic() < self.started + READY_SECONDS:
            if superseded.is_set():
                raise SupersededError
            if self._child.returncode is not None:
                await self.exited()
                raise self._start_failed(self.last_words())
            answer = await self._ask_ready()
            if answer == "200":
                return
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, longest)
        raise self._start_failed(f"not ready after {READY_SECONDS:.0f} s: /_/ready says {answer}")

    async def exited(self) -> int:
        """Wait for the end of the process and of its output; return its exit status."""
        status = await self._child.wait()
        if self._reading is not None:
            # A grandchild may hold the pipe open for ever.
            await asyncio.wait({self._reading}, timeout=OUTPUT_SECONDS)
        return status

    async def stop(self, first: signal.Signals, seconds: float) -> None:
        """Send the signal *first* and give the process *seconds* to drain; `kill` it then in any case."""
        with suppress(ProcessLookupError):
            self._child.send_signal(first)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._child.wait(), seconds)

    async def kill(self) -> None:
        """End the process and whatever it started, at once, and close what leads to it."""
        # Also after its own end: the group lives on while one of its children does.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        await self.exited()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await self.transport.aclose()

    def last_words(self) -> str:
        """Return why the process ended: what the base said of it, else the exit status; safe to show to any caller."""
        if self.output.failure is not None:
            return self.output.failure
        status = self._child.returncode
        ended = f"ended by {_signal_name(-status)}" if status and status < 0 else f"exit status {status}"
        return f"the process ended: {ended}"

    async def get(self, path: str, seconds: float = 2.0) -> httpx2.Response:
        """Ask the process for something small; raise `httpx2.TransportError` where it does not answer."""
        request = httpx2.Request(
            "GET",
            f"http://{ADDRESS}:{self.port}{path}",
            extensions={"timeout": dict.fromkeys(("connect", "read", "write", "pool"), seconds)},
        )
        response = await self.transport.handle_async_request(request)
        await response.aread()
        return response

    def _start_failed(self, reason: str) -> StartFailedError:
        return StartFailedError(reason, self.output.explained(reason))

    async def _ask_ready(self) -> str:
        try:
            return str((await self.get("/_/ready")).status_code)
        except httpx2.TransportError as error:
            return type(error).__name__

    async def _read_output(self, pipe: IO[bytes]) -> None:
        async for line in _lines(pipe):
            self.output.add(line.decode(errors="replace").rstrip())


async def start_process(python: Path, folder: Path, environment: Mapping[str, str], output: Output) -> Process:
    """Start ``python index.py`` in *folder*, the leader of a process group of its own."""
    reading, writing = os.pipe()
    pipe = os.fdopen(reading, "rb", buffering=0)
    try:
        child = await asyncio.create_subprocess_exec(
            python,
            "index.py",
            cwd=folder,
            env=dict(environment),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            # Ctrl-C in the terminal reaches the supervisor alone, which then stops things in their order.
            start_new_session=True,
        )
    except OSError:
        pipe.close()
        raise
    finally:
        os.close(writing)
    process = Process(child, folder, int(environment["port"]), int(environment["metrics_port"]), output)
    process.read_output(pipe)
    return process


async def _lines(pipe: IO[bytes]) -> AsyncIterator[bytes]:
    """Yield the lines of *pipe*; one that never ends comes in pieces, so that it cannot fill the memory."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    pending = b""
    try:
        while piece := await reader.read(PIECE_BYTES):
            *complete, pending = (pending + piece).split(b"\n")
            for line in complete:
                yield line
            if len(pending) > LONGEST_LINE_BYTES:
                yield pending
                pending = b""
        if pending:
            yield pending
    finally:
        transport.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"

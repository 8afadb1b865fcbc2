"""A child process that serves HTTP: its output is kept in a file, and it is stopped by its pid."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread

T = TypeVar("T")

START_SECONDS = 20.0
STOP_SECONDS = 20.0
SHOWN_LOG_CHARACTERS = 4000

# What the running test started, for the report of its failure; conftest.py empties it before each test.
started: list[Process] = []


class StartError(AssertionError):
    """A process ended, or was not healthy in time; the message holds its output."""


class Process:
    """A process that listens on a port, its output in a file, stopped by its pid."""

    def __init__(
        self, folder: Path, command: Sequence[str], environ: Mapping[str, str], *, metrics_port: int | None = None
    ) -> None:
        self.port = int(environ["port"])
        self.metrics_port = metrics_port or int(environ["metrics_port"])
        self.url = f"http://127.0.0.1:{self.port}"
        self.metrics_url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        self.folder = folder
        self.lock_file = Path(environ["TMPDIR"]) / ".lock"
        self._log_file = folder / "output.log"
        self._kept_output = ""
        with self._log_file.open("wb") as output:
            self._child = subprocess.Popen(
                command,
                cwd=folder,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A group of its own, so that what it starts can be ended with it.
                start_new_session=True,
            )
        started.append(self)

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._child.pid

    @property
    def status(self) -> int | None:
        """Return the exit status, or None while it runs."""
        return self._child.poll()

    def output(self) -> str:
        """Return everything that the process has written."""
        if self._log_file.exists():
            return self._log_file.read_text(errors="replace")
        return self._kept_output

    def lines(self) -> list[str]:
        """Return the whole lines of the output so far; a line separator inside JSON text ends none."""
        return self.output().split("\n")[:-1]

    def logs(self) -> list[dict[str, Any]]:
        """Return the JSON lines of the output, parsed."""
        return [json.loads(line) for line in self.lines() if line.startswith("{")]

    def tail(self) -> str:
        """Return the end of the output, for messages."""
        return self.output()[-SHOWN_LOG_CHARACTERS:]

    async def log_line(self, text: str, *, timeout_seconds: float = 5.0) -> str:
        """Wait for a line of output that holds *text* and return it."""
        return await self._eventually(lambda: self._line_with(text), repr(text), timeout_seconds)

    async def json_line(
        self, wanted: Callable[[dict[str, Any]], bool], *, timeout_seconds: float = 5.0
    ) -> dict[str, Any]:
        """Wait for a JSON line of output of which *wanted* is true and return it, parsed."""
        return await self._eventually(lambda: next(filter(wanted, self.logs()), None), "such line", timeout_seconds)

    async def ready(self, *, timeout_seconds: float = START_SECONDS) -> None:
        """Wait for the first 200 of ``/_/ready``; raise `StartError` if the process ends before it."""
        await self._eventually(lambda: self.answers("/_/ready"), "ready", timeout_seconds)

    async def exited(self, *, timeout_seconds: float = STOP_SECONDS) -> int:
        """Wait for the end and return the exit status."""
        return await anyio.to_thread.run_sync(lambda: self.wait(timeout_seconds))

    def wait(self, timeout_seconds: float = STOP_SECONDS) -> int:
        """Wait for the end, blocking, and return the exit status."""
        try:
            return self._child.wait(timeout_seconds)
        except subprocess.TimeoutExpired as error:
            message = f"still running after {timeout_seconds} s\n{self.tail()}"
            raise AssertionError(message) from error

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the process and return at once."""
        self._child.send_signal(number)

    def stop(self) -> int:
        """Send SIGTERM, wait for the end, blocking, and return the exit status."""
        self.send_signal(signal.SIGTERM)
        return self.wait()

    def dispose(self, patience_seconds: float = 3.0) -> None:
        """End it in whatever state it is, and everything it started; keep the output."""
        # SIGINT first: it drains without a window, and a measured process writes its coverage.
        if self.status is None:
            self.send_signal(signal.SIGINT)
            self._ended_within(patience_seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._child.wait(STOP_SECONDS)
        self._kept_output = self.output()

    def resident_bytes(self) -> int:
        """Return the resident memory of the process."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def answers(self, path: str) -> bool:
        """Tell whether ``GET path`` answers 200 now; raise `StartError` if the process has ended."""
        if self.status is not None:
            raise StartError(f"ended with status {self.status}\n{self.tail()}")
        return status_of(self.port, path) == 200

    def wait_until_healthy(self, timeout_seconds: float = START_SECONDS) -> None:
        """Wait, blocking, for the first 200 of ``/_/health``."""
        deadline = time.monotonic() + timeout_seconds
        while not self.answers("/_/health"):
            if time.monotonic() > deadline:
                raise StartError(f"not healthy after {timeout_seconds} s\n{self.tail()}")
            time.sleep(0.01)

    def _line_with(self, text: str) -> str | None:
        return next((line for line in self.lines() if text in line), None)

    def _ended_within(self, seconds: float) -> bool:
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    async def _eventually(self, look: Callable[[], T | None], what: str, seconds: float) -> T:
        deadline = time.monotonic() + seconds
        while not (found := look()):
            if time.monotonic() > deadline:
                raise AssertionError(f"no {what} within {seconds} s\n{self.tail()}")
            await anyio.sleep(0.02)
        return found


def status_of(port: int, path: str, host: str = "127.0.0.1") -> int | None:
    """Return the status of a GET, or None where nothing answers within a second."""
    request = f"GET {path} HTTP/1.1\r\nHost: probe\r\nConnection: close\r\n\r\n"
    try:
        with socket.create_connection((host, port), timeout=1) as connection:
            connection.sendall(request.encode())
            return int(connection.recv(64).split(b" ")[1])
    except (OSError, IndexError, ValueError):
        return None

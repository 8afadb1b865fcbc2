"""
Start functions as OpenFaaS does: staged as faas-cli stages them, one process each, ports picked by the system.

``with run_function(source) as function`` (or ``async with``) gives a function that answers; *source* is the text of a
``handler.py`` or a handler folder.  Keyword arguments are the function's environment; ``None`` takes a default away.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import anyio
import anyio.to_thread

from tests.child import Process, StartError
from tests.staging import BASE, stage

Source = str | Path | Mapping[str, str]

PASSED_ON = ("PATH", "HOME", "LANG", "COVERAGE_PROCESS_START", "COVERAGE_FILE")
PORT_ATTEMPTS = 3


class Starter(Protocol):
    """Start a process whose files stand in *folder*."""

    def __call__(self, folder: Path) -> Process: ...


class Running:
    """A process that lives as long as the ``with`` block, plain or ``async``, and is healthy when the block begins."""

    def __init__(self, start: Starter) -> None:
        self._start = start
        self._wait_healthy = True
        self._folder = tempfile.TemporaryDirectory(prefix="fn-", ignore_cleanup_errors=True)
        self._process: Process | None = None

    def __enter__(self) -> Process:
        try:
            return self._started()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.dispose()
        self._folder.cleanup()

    async def __aenter__(self) -> Process:
        return await anyio.to_thread.run_sync(self.__enter__)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # A cancelled test still ends its processes.
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(lambda: self.__exit__(kind, error, trace))

    def unwaited(self) -> Self:
        """Let the block begin at once, for processes that are not meant to get healthy."""
        self._wait_healthy = False
        return self

    def _started(self) -> Process:
        for attempt in range(PORT_ATTEMPTS):
            self._process = self._start(folder=Path(self._folder.name) / str(attempt))
            try:
                if self._wait_healthy:
                    self._process.wait_until_healthy()
            except StartError:
                if not self._lost_its_port() or attempt == PORT_ATTEMPTS - 1:
                    raise
            else:
                return self._process
        raise AssertionError("unreachable")

    def _lost_its_port(self) -> bool:
        # Between picking a free port and binding it another process may take it.
        return self._process is not None and "in use" in self._process.output()


def run_function(source: Source, **env: str | None) -> Running:
    """Run *source* as a function of its own process, in the direct shape, and give it when it is healthy."""

    def start(folder: Path) -> Process:
        folder.mkdir()
        staged = stage(source, folder)
        environ = function_environ(folder, env)
        return Process(staged, [sys.executable, "index.py"], environ)

    return Running(start)


def function_environ(folder: Path, env: Mapping[str, str | None]) -> dict[str, str]:
    """Return a function's whole environment: nothing of the developer's own but what programs need to run."""
    for name in ("tmp", "secrets", "objects"):
        (folder / name).mkdir()
    defaults: dict[str, str | None] = {
        **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
        "PYTHONPATH": str(BASE),
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(folder / "tmp"),
        "FAAS_SECRETS_DIR": str(folder / "secrets"),
        "STORAGE_URL": f"file://{folder / 'objects'}",
        # Without a name the host's would be taken, which differs from machine to machine.
        "OPENFAAS_NAME": "probe",
        "EVENTS_HTTP_PUBLIC": "true",
        # The default of five seconds would make every stop take them.
        "healthcheck_interval": "200ms",
        "write_timeout": "10s",
        "port": str(free_port()),
        "metrics_port": str(free_port()),
    }
    return {name: value for name, value in {**defaults, **env}.items() if value is not None}


def free_port() -> int:
    """Return a port that nothing listens on at the moment."""
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])

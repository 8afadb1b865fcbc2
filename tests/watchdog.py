"""
Run the real of-watchdog in front of a function.

Its metrics port, 8081, cannot be set, so only one can run on a machine at a time: a lock file puts the tests that need
one in a row, those of other pytest workers too.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from tests.child import START_SECONDS, Process, StartError, status_of
from tests.processes import Running, Source, free_port, function_environ
from tests.staging import stage

METRICS_PORT = 8081
TURN_SECONDS = 300.0
LOCK = Path(tempfile.gettempdir()) / "of-watchdog-8081.lock"
WATCHDOG = shutil.which("of-watchdog")
UPSTREAM = Path(__file__).parent / "contract" / "upstream.py"


class RunningWatchdog(Running):
    """A `Running` that holds the machine's one metrics port of of-watchdog."""

    def __enter__(self) -> Process:
        self._turn = _turn()
        self._turn.__enter__()
        try:
            return super().__enter__()
        except BaseException:
            self._turn.__exit__(None, None, None)
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, trace)
        self._turn.__exit__(None, None, None)


def run_watchdog(source: Source, **env: str | None) -> Running:
    """Run of-watchdog in front of *source* under a plain uvicorn that drains as the official Go template does."""

    def start(folder: Path) -> Process:
        port = free_port()
        process = _start(folder, source, UPSTREAM, {"upstream_url": f"http://127.0.0.1:{port}", **env})
        _wait_for_function(process, port)
        return process

    return RunningWatchdog(start)


def run_behind_watchdog(source: Source, **env: str | None) -> Running:
    """Run of-watchdog in front of *source* under the template's own ``index.py``."""

    def start(folder: Path) -> Process:
        return _start(folder, source, Path("index.py"), {"upstream_url": f"http://127.0.0.1:{free_port()}", **env})

    return RunningWatchdog(start)


def _start(folder: Path, source: Source, program: Path, env: Mapping[str, str | None]) -> Process:
    folder.mkdir()
    staged = stage(source, folder)
    defaults: dict[str, str | None] = {
        "mode": "http",
        "fprocess": f"{sys.executable} {program}",
        "prefix_logs": "false",
        # As the image sets it; a row that is about the default takes it away.
        "log_buffer_size": "-1",
    }
    environ = function_environ(folder, {**defaults, **env})
    return Process(staged, [str(WATCHDOG)], environ, metrics_port=METRICS_PORT)


def _wait_for_function(process: Process, port: int) -> None:
    # of-watchdog says that it is healthy before the function behind it answers, which is no matter of the rows.
    deadline = time.monotonic() + START_SECONDS
    while process.status is None and status_of(port, "/status/200") != 200:
        if time.monotonic() > deadline:
            raise StartError(f"no answer from the function\n{process.tail()}")
        time.sleep(0.01)


@contextmanager
def _turn() -> Iterator[None]:
    deadline = time.monotonic() + TURN_SECONDS
    descriptor = os.open(LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        while not _locked(descriptor):
            if time.monotonic() > deadline:
                raise AssertionError(f"{LOCK} is held by another test for {TURN_SECONDS} s")
            time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

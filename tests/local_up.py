"""Start the embedded OpenFaaS in a project of the test's own, as a user does after ``faas-cli template pull``."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self

import anyio
import pytest

from tests.staging import TEMPLATE

LANG = "python-fastapi"
START_SECONDS = 30.0
STOP_SECONDS = 20.0
POLL_SECONDS = 0.05
GATEWAY = re.compile(r"^gateway +http://127\.0\.0\.1:(\d+)", re.MULTILINE)
SHOWN_CHARACTERS = 6000


def local_module(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a module of ``local/`` as ``python3 template/python-fastapi/local`` would."""
    monkeypatch.syspath_prepend(str(TEMPLATE / "local"))
    return importlib.import_module(name)


def make_project(folder: Path, handlers: Mapping[str, str], *, lang: str = LANG, more: str = "") -> Path:
    """
    Make a project of functions, by name and text of ``handler.py``, and return its folder.

    *more* is indented YAML that every function gets.
    """
    project = folder / "project"
    caches = shutil.ignore_patterns("__pycache__", ".*_cache")
    shutil.copytree(TEMPLATE, project / "template" / lang, ignore=caches)
    lines = ["version: 1.0", "provider:", "  name: openfaas", "functions:"]
    for name, text in handlers.items():
        write_handler(project, name, text)
        lines += [f"  {name}:", f"    lang: {lang}", f"    handler: ./{name}", f"    image: {name}:1.0"]
        lines += [f"    {line}" for line in more.splitlines()]
    (project / "stack.yml").write_text("\n".join(lines) + "\n")
    return project


def write_handler(project: Path, name: str, text: str) -> None:
    """Write the handler of a function as an editor does: at once."""
    handler = project / name / "handler.py"
    handler.parent.mkdir(parents=True, exist_ok=True)
    new = handler.with_suffix(".new")
    new.write_text(text)
    new.replace(handler)


class Up:
    """A running ``up``; ``with up(project) as local`` waits until every function serves or has failed."""

    def __init__(
        self, project: Path, options: Sequence[str], environ: Mapping[str, str], *, start_seconds: float = START_SECONDS
    ) -> None:
        self.project = project
        self._start_seconds = start_seconds
        self._log = project / "up.log"
        folder = next((project / "template").iterdir()).relative_to(project)
        with self._log.open("wb") as output:
            self._child = subprocess.Popen(
                [sys.executable, folder / "local", "up", *options],
                cwd=project,
                env=os.environ | environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        """Wait for the greeting."""
        try:
            wait_until(lambda: "Ctrl-C stops" in self.output() or self._ended(), "started", self._start_seconds)
            assert not self._ended(), self.output()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it as Ctrl-C does, and show what it wrote when the test has failed."""
        self.stop()
        if error is not None:
            error.add_note(self.output()[-SHOWN_CHARACTERS:])

    @property
    def pid(self) -> int:
        """Return the supervisor's process id."""
        return self._child.pid

    @property
    def port(self) -> int:
        """Return the gateway's port."""
        found = GATEWAY.search(self.output())
        assert found is not None
        return int(found[1])

    @property
    def url(self) -> str:
        """Return the gateway's address."""
        return f"http://127.0.0.1:{self.port}"

    def output(self) -> str:
        """Return everything on the terminal so far."""
        return self._log.read_text(errors="replace")

    async def says(self, text: str, *, times: int = 1, timeout_seconds: float = 15.0) -> None:
        """Wait until *text* stands on the terminal."""
        await anyio.to_thread.run_sync(
            lambda: wait_until(lambda: self.output().count(text) >= times, text, timeout_seconds)
        )

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor alone."""
        self._child.send_signal(number)

    def wait(self, timeout_seconds: float = STOP_SECONDS) -> int:
        """Wait for the end, blocking, and return the exit status."""
        return self._child.wait(timeout_seconds)

    def _ended(self) -> bool:
        return self._child.poll() is not None

    def stop(self) -> None:
        """End it as Ctrl-C does, or by force where that takes too long."""
        if not self._ended():
            self.send_signal(signal.SIGINT)
        try:
            self.wait()
        finally:
            self._child.kill()
            self._child.wait()


def up(project: Path, *options: str, **environ: str) -> Up:
    """Start ``up`` on any free port, with this interpreter as it is."""
    return Up(project, ["--port", "0", "--python", sys.executable, *options], environ)


def run_up(project: Path, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run an ``up`` that is expected to end by itself."""
    command = [sys.executable, "template/python-fastapi/local", "up", *options]
    return subprocess.run(
        command, cwd=project, env=os.environ | environ, capture_output=True, text=True, timeout=100, check=False
    )


def wait_until(condition: Callable[[], bool], what: str, timeout_seconds: float = 10.0) -> None:
    """Wait, blocking, until *condition* holds."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not {what} after {timeout_seconds} s")
        time.sleep(POLL_SECONDS)


def processes_below(folder: Path) -> list[int]:
    """Return the ids of the processes whose working folder lies below *folder*."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "cwd").readlink().is_relative_to(folder):
                found.append(int(entry.name))
        except OSError:
            # Ended since it was listed, or not ours to look at.
            continue
    return found


def faas_cli(local: Up, *arguments: str, stdin: str = "") -> str:
    """Run the real faas-cli against the gateway and return what it wrote to standard output."""
    done = subprocess.run(
        ["faas-cli", *arguments, "--gateway", local.url],
        cwd=local.project,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    return done.stdout


def parsed_lines(text: str) -> list[Any]:
    """Return the JSON values of NDJSON."""
    return [json.loads(line) for line in text.splitlines()]

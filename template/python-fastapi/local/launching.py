"""Bring a function from its source to a running process: its environment, its staged files, its settings."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from environments import Environments
from events import local_environment
from guarding import Guardian
from logbook import KEPT_CHARACTERS, Line, Logbook
from output import Output
from ports import ADDRESS, free_ports
from processes import Process, start_process
from rendering import Source
from stackfile import Function
from staging import stage
from terminal import Terminal

NOT_INHERITED = (
    "VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH", "port", "upstream_url", "http_upstream_url", "fprocess", "mode",
    "ROOT_PATH", "OPENFAAS_NAME", "OPENFAAS_NAMESPACE",
)  # fmt: skip
"""Variables of the user's shell that would make a function another one, or a child of a watchdog."""


@dataclass(frozen=True)
class Launcher:
    """What the functions of one ``up`` have in common."""

    project: Path
    state: Path
    copied_paths: Sequence[str]
    gateway_url: str
    python: Path | None
    environments: Environments
    guardian: Guardian
    logbook: Logbook
    terminal: Terminal

    async def launch(self, function: Function, template: Path, *, quiet: bool) -> Process:
        """
        Start a new process of *function* from its files as they are now; it is not yet ready.

        The terminal shows the output of a *quiet* one only when that is released.

        Raises:
            InstallError: its requirements cannot be installed.
            StagingError: its files cannot be staged.
        """
        base = template / "base"
        python = self.python
        if python is None:
            requirements = function.handler / "requirements.txt"
            python = await asyncio.to_thread(self.environments.for_function, function.name, base, requirements)
        folder = await asyncio.to_thread(self._stage, function, template)
        environment = self._environment(function, base, folder)
        process = await start_process(
            python, folder / "app", environment, self._output(function, folder.name, held=quiet)
        )
        self.guardian.watch(process.pid)
        return process

    def ended(self, process: Process) -> None:
        """Forget a process that has ended, and remove what was staged for it."""
        self.guardian.forget(process.pid)
        shutil.rmtree(process.folder.parent, ignore_errors=True)

    def _stage(self, function: Function, template: Path) -> Path:
        """Stage into a folder of this process's own: one still running keeps the files that it started with."""
        folders = self.state / "run" / function.name
        folders.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folders)
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=folders))
        (folder / "tmp").mkdir()
        stage(function, template, self.project, self.copied_paths, folder / "app")
        return folder

    def _environment(self, function: Function, base: Path, folder: Path) -> dict[str, str]:
        port, metrics_port = free_ports(2)
        given = local_environment(function.environment, self.project / ".secrets", self.gateway_url)
        inherited = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        return {
            **self._defaults(function),
            **inherited,
            **{name: value for name, value in given.items() if name not in NOT_INHERITED},
            "port": str(port),
            "metrics_port": str(metrics_port),
            "LISTEN_HOST": ADDRESS,
            "TMPDIR": str(folder / "tmp"),
            "OPENFAAS_NAME": function.name,
            "OPENFAAS_NAMESPACE": function.namespace,
            "gateway_url": self.gateway_url,
            # The base as it lies in the template: a change there needs no installation to take effect.
            "PYTHONPATH": str(base),
            "PYTHONUNBUFFERED": "1",
        }

    def _defaults(self, function: Function) -> Mapping[str, str]:
        """Return what the shell and the stack file may set otherwise."""
        objects = self.state / "objects" / function.name
        objects.mkdir(parents=True, exist_ok=True)
        return {
            "EVENTS_HTTP_PUBLIC": "true",
            "FAAS_SECRETS_DIR": str(self.project / ".secrets"),
            **_records(function),
            "STORAGE_URL": objects.as_uri(),
            # Nothing routes to a process once it has been replaced, so that it need not wait long.
            "healthcheck_interval": "1s",
        }

    def _output(self, function: Function, instance: str, *, held: bool) -> Output:
        def keep(text: str) -> None:
            kept, now = text[:KEPT_CHARACTERS], datetime.now(UTC)
            self.logbook.add(Line(function.name, function.namespace, f"{function.name}-{instance}", now, kept))

        source = Source(instance, function.handler, self.project)
        return Output(source, keep, lambda text: self.terminal.log(function.name, text), held=held)


def _records(function: Function) -> Mapping[str, str]:
    """Return where *function* keeps its records, if not on the Redis of its cache."""
    cache_url = function.environment.get("CACHE_URL", os.environ.get("CACHE_URL", ""))
    if cache_url.partition(":")[0] in ("redis", "rediss"):
        return {}
    # One process a function: its own memory is the place of all its records.
    return {"IDEMPOTENCY_URL": "memory://"}


def _remove_abandoned(folders: Path) -> None:
    """Remove what was staged by an ``up`` that is no longer there."""
    for folder in folders.iterdir():
        pid = folder.name.split("-")[0]
        if not (pid.isdigit() and _alive(int(pid))):
            shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
    return True

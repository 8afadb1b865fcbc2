"""Replay rows of the contract table against images: a container in the foreground looks like its process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path

from anyio import to_thread

from deploy.images.engine import Engine
from deploy.images.pods import pod_options, remove
from tests.child import START_SECONDS, Process, status_of
from tests.contract.replay import Replay
from tests.contract.table import Row, Target
from tests.e2e.containers import new_name
from tests.processes import Running, free_port
from tests.watchdog import METRICS_PORT, RunningWatchdog

SETTINGS: Mapping[str, str | None] = {
    "healthcheck_interval": "1s",
    "write_timeout": "10s",
    "OPENFAAS_NAME": "contract",
    "TMPDIR": "/tmp",
}
"""What rows take for granted and the image's own settings, or a cluster's, would change."""


class ForegroundContainer(Process):
    """A container whose output and exit status come through the engine's client, on the ports of this machine."""

    def __init__(self, engine: Engine, image: str, folder: Path, settings: Mapping[str, str]) -> None:
        self.engine = engine
        self.name = new_name()
        self.function_port = int(settings.get("upstream_url", settings["port"]).rpartition(":")[2])
        tmp = folder / "tmp"
        tmp.mkdir(parents=True)
        tmp.chmod(0o1777)
        # The engine's client passes the output and the exit status on; signals go to the container itself.
        options = pod_options(engine, self.name, tmp, env=settings, network="host")
        command = [engine.program, "run", "--rm", "--sig-proxy=false", *options, image]
        metrics_port = METRICS_PORT if "upstream_url" in settings else int(settings["metrics_port"])
        environ = {**engine.environ, "port": settings["port"], "TMPDIR": str(tmp)}
        super().__init__(folder, command, environ, metrics_port=metrics_port)

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the first process of the container."""
        pid = int(self.engine.run("inspect", "--format", "{{.State.Pid}}", self.name))
        try:
            # At once, since rows count from it: the engine takes its time.
            os.kill(pid, number)
        except PermissionError:
            self.engine.run("kill", "--signal", number.name, self.name)

    def dispose(self, patience_seconds: float = 3.0) -> None:
        """End it in whatever state it is; keep the output."""
        remove(self.engine, self.name)
        # The engine's client ends by itself then.
        with contextlib.suppress(AssertionError):
            self.wait(patience_seconds)
        super().dispose(patience_seconds)


def run_image(engine: Engine, image: str, shape: str, settings: Mapping[str, str | None]) -> Running:
    """Run *image*, which has *shape*, on the network and with the loopback of this machine."""

    def start(folder: Path) -> Process:
        ports: dict[str, str | None] = {"port": str(free_port()), "metrics_port": str(free_port())}
        if shape == "watchdog":
            ports["upstream_url"] = f"http://127.0.0.1:{free_port()}"
        given = {**SETTINGS, **ports, **settings}
        return ForegroundContainer(engine, image, folder, {k: v for k, v in given.items() if v is not None})

    return RunningWatchdog(start) if shape == "watchdog" else Running(start)


async def replay(engine: Engine, image: str, row: Row, *, shape: str, target: Target) -> None:
    """Run *image* for *row*, take its steps, and expect what the row expects of *target*."""
    refusals = row.refusals(target)
    running = run_image(engine, image, shape, row.settings)
    if refusals or "suppress_lock" in row.settings:
        running = running.unwaited()
    async with running as process:
        if refusals:
            assert await process.exited() == refusals[0].status, process.tail()
            assert refusals[0].why in process.output()
            return
        await started(process, row)
        await Replay(process, target).run(row)


async def started(process: Process, row: Row) -> None:
    """Wait until nothing is imported any more: calls would wait for that, and rows take their times."""
    assert isinstance(process, ForegroundContainer)
    path = "/status/200" if "ready_path" in row.settings else "/_/ready"
    deadline = time.monotonic() + START_SECONDS
    while await to_thread.run_sync(status_of, process.function_port, path) != 200:
        assert process.status is None, process.tail()
        assert time.monotonic() < deadline, f"no start within {START_SECONDS} s\n{process.tail()}"
        await asyncio.sleep(0.02)

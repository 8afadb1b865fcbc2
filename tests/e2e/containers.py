"""
Run images as Kubernetes runs the functions of OpenFaaS.

``with run_container(engine, image) as container`` gives a running container: its root is read-only, ``/tmp`` is a
folder that outlives a restart as an emptyDir does, and its user is 12000 without any capability.  It is removed at the
end, by its name.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.images.engine import ANSWER_SECONDS, Engine
from deploy.images.pods import empty_dir, pod_options, remove
from tests.child import SHOWN_LOG_CHARACTERS, StartError, status_of

SESSION = f"e2e-{os.getpid()}"
"""What the names of this session's images and containers begin with, so that several can run side by side."""

PORT = 8080
METRICS_PORT = 8081
START_SECONDS = 60.0
LOOK_SECONDS = 0.5
STOP_SECONDS = 40

# What the running test started, for the report of its failure; conftest.py empties it before each test.
started: list[Container] = []
_numbers = itertools.count(1)


@dataclass(frozen=True)
class State:
    """What the engine knows of a container's process."""

    running: bool
    exit_code: int
    oom_killed: bool
    restarts: int


class Container:
    """A container that listens on 8080 and 8081; *tmp* is its ``/tmp``, seen from here."""

    port = PORT
    metrics_port = METRICS_PORT

    def __init__(self, engine: Engine, name: str, tmp: Path, *, restarts: bool = False) -> None:
        self.engine = engine
        self.name = name
        self.tmp = tmp
        self.restarts = restarts
        self.started_at = time.monotonic()
        self._kept_output: str | None = None
        started.append(self)

    @property
    def address(self) -> str:
        """Return the address at which it is reached now: a restart may change it."""
        networks: Mapping[str, Mapping[str, str]] = self._inspect()["NetworkSettings"]["Networks"] or {}
        return next((found for network in networks.values() if (found := network["IPAddress"])), "127.0.0.1")

    @property
    def url(self) -> str:
        """Return the address of the function."""
        return f"http://{self.address}:{PORT}"

    @property
    def metrics_url(self) -> str:
        """Return the address of the metrics."""
        return f"http://{self.address}:{METRICS_PORT}/metrics"

    @property
    def pid(self) -> int:
        """Return the process id of the container's first process on this machine, 0 when it has ended."""
        return int(self._inspect()["State"]["Pid"])

    def state(self) -> State:
        """Ask the engine how its process is or was."""
        found = self._inspect()
        state = found["State"]
        return State(state["Running"], state["ExitCode"], state["OOMKilled"], found["RestartCount"])

    def output(self) -> str:
        """Return what it has written, on stdout and stderr."""
        return self._logs(stderr=subprocess.STDOUT) if self._kept_output is None else self._kept_output

    def logs(self) -> list[dict[str, Any]]:
        """Return the lines of its stdout, which are JSON one and all, parsed."""
        return [json.loads(line) for line in self._logs(stderr=subprocess.DEVNULL).split("\n")[:-1]]

    def tail(self) -> str:
        """Return the end of the output, for messages."""
        return self.output()[-SHOWN_LOG_CHARACTERS:]

    def exec(self, *command: str) -> str:
        """Run *command* in it as its user and return what it prints; raise `EngineError` where it fails."""
        return self.engine.run("exec", self.name, *command)

    def wait_healthy(self, timeout_seconds: float = START_SECONDS) -> float:
        """Wait, blocking, for the first 200 of ``/_/health`` and return the seconds since it was started."""
        return self._wait_for("/_/health", timeout_seconds)

    def wait_ready(self, timeout_seconds: float = START_SECONDS) -> float:
        """Wait, blocking, for the first 200 of ``/_/ready`` and return the seconds since it was started."""
        return self._wait_for("/_/ready", timeout_seconds)

    def stop(self) -> int:
        """Send SIGTERM, wait for the end, and return the exit status; like the kubelet, kill it when it takes long."""
        self.engine.run("stop", "--time", str(STOP_SECONDS), self.name, timeout_seconds=STOP_SECONDS + ANSWER_SECONDS)
        return self.state().exit_code

    def remove(self) -> None:
        """Remove it in whatever state it is; keep the output."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._kept_output = self.output()
        remove(self.engine, self.name)

    def _wait_for(self, path: str, seconds: float) -> float:
        deadline = time.monotonic() + seconds
        while not self._answers_within(path, LOOK_SECONDS):
            if not (state := self.state()).running and not self.restarts:
                raise StartError(f"{self.name} ended with {state.exit_code}\n{self.tail()}")
            if time.monotonic() > deadline:
                raise StartError(f"{self.name} does not answer {path} with 200 after {seconds} s\n{self.tail()}")
        return time.monotonic() - self.started_at

    def _answers_within(self, path: str, seconds: float) -> bool:
        end, address = time.monotonic() + seconds, self.address
        while time.monotonic() < end:
            if status_of(PORT, path, address) == 200:
                return True
            time.sleep(0.01)
        return False

    def _inspect(self) -> dict[str, Any]:
        return self.engine.inspect(self.name)

    def _logs(self, *, stderr: int) -> str:
        done = subprocess.run(
            [self.engine.program, "logs", self.name],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=self.engine.environ,
            timeout=ANSWER_SECONDS,
            check=False,
        )
        return done.stdout.decode(errors="replace")


@contextlib.contextmanager
def run_container(
    engine: Engine,
    image: str,
    *,
    limits: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    restart: bool = False,
    network: str = "bridge",
    volumes: Sequence[str] = (),
    options: Sequence[str] = (),
) -> Iterator[Container]:
    """
    Run *image* for the time of the block; it may not be healthy yet when that begins.

    *limits* are Kubernetes' (``{"cpu": "2000m", "memory": "1Gi"}``), *volumes* and *options* the engine's
    (``/here:/there:ro``).  With *restart* the engine starts it again whenever it ends, as Kubernetes does.
    """
    name = new_name()
    with empty_dir() as tmp:
        given = pod_options(engine, name, tmp, limits=limits, env=env, network=network)
        given += [flag for volume in volumes for flag in ("--volume", volume)]
        given += ["--restart", "always" if restart else "no", *options]
        container = Container(engine, name, tmp, restarts=restart)
        try:
            engine.run("run", "--detach", *given, image)
            yield container
        finally:
            container.remove()


def new_name() -> str:
    """Return a name for a container of this session."""
    return f"{SESSION}-{next(_numbers)}"

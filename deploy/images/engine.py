"""The container engine of this machine: Docker where a daemon answers, else Podman with settings that it can keep."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ANSWER_SECONDS = 60.0
BUILD_SECONDS = 1200.0
BUILD_ATTEMPTS = 3
# Podman takes a layer from its cache that somebody else removes at that moment.
LOST_LAYER = re.compile(r"(layer|image) not known")
PROCESSES = 4096
FILES = 65536
# What Podman's containers get has to lie within what this machine grants, which its own defaults do not look at.
CONTAINERS_CONF = """\
[containers]
netns = "host"
default_ulimits = [{ulimits}]
[engine]
{engine}
"""


class EngineError(Exception):
    """The engine refused; the message ends with what it said."""


@dataclass(frozen=True)
class Engine:
    """A container engine by its command line, in which Docker and Podman agree."""

    program: str
    environ: Mapping[str, str] = field(repr=False)
    folder: Path = Path()
    """Where it runs: Podman leaves a file called `oom` there for each container that was killed for want of memory."""

    def run(self, *arguments: str, timeout_seconds: float = ANSWER_SECONDS, check: bool = True) -> str:
        """Run a command of the engine and return what it prints on stdout; raise `EngineError` where it fails."""
        command = [self.program, *arguments]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout_seconds,
            env=self.environ,
            cwd=self.folder,
            check=False,
        )
        if check and done.returncode:
            raise EngineError(f"{' '.join(command[:2])} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def build(self, context: Path, image: str, options: Sequence[str]) -> str:
        """Build *image* from *context* and return the log; raise `EngineError` with it where a step fails."""
        return run_build(image, [self.program, "build", *options, "--tag", image, str(context)], self.environ)

    def inspect(self, name: str) -> dict[str, Any]:
        """Return what the engine knows of an image or a container."""
        found: list[dict[str, Any]] = json.loads(self.run("inspect", name))
        return found[0]

    def has(self, image: str) -> bool:
        """Tell whether *image* is on this machine."""
        return bool(self.run("image", "inspect", "--format", "{{.Id}}", image, check=False).strip())

    def pull(self, image: str) -> bool:
        """Fetch *image*; False where no registry of this machine has it."""
        try:
            self.run("pull", "--quiet", image, timeout_seconds=5 * ANSWER_SECONDS)
        except (EngineError, subprocess.TimeoutExpired):
            return False
        return True

    def remove_image(self, image: str) -> None:
        """Remove *image* by its name; its layers stay as the cache of builds after this one and beside it."""
        self.run("image", "rm", "--no-prune", "--force", image, check=False)


def run_build(image: str, command: Sequence[str], environ: Mapping[str, str], folder: Path | None = None) -> str:
    """
    Run *command*, which builds *image*, in *folder* and return the log; again where the engine has lost a layer.

    Raises:
        EngineError: A step failed; the message ends with the log.
    """
    for _ in range(BUILD_ATTEMPTS):
        done = subprocess.run(
            command,
            cwd=folder,
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BUILD_SECONDS,
            check=False,
        )
        if not (done.returncode and LOST_LAYER.search(done.stdout)):
            break
    if done.returncode:
        raise EngineError(f"{image} was not built: {done.stdout}")
    return done.stdout


def find_engine(folder: Path) -> Engine:
    """
    Return the engine to use; what it needs of files goes to *folder*.

    Raises:
        EngineError: Neither a Docker daemon nor Podman is there, or Podman may not do what is needed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.which("docker") and not _is_podman("docker") and _answers(["docker", "info"]):
        return Engine("docker", {**os.environ, "DOCKER_BUILDKIT": "1"}, folder)
    if not shutil.which("podman"):
        raise EngineError("neither a Docker daemon that answers nor podman is on this machine")
    if os.geteuid():
        raise EngineError("podman needs root: for others it keeps no limits, and its containers have no addresses")
    settings = folder / "containers.conf"
    settings.write_text(_containers_conf())
    # Images that Docker can run as well, with their health check.
    return Engine("podman", {**os.environ, "CONTAINERS_CONF": str(settings), "BUILDAH_FORMAT": "docker"}, folder)


def docker_shim(engine: Engine, folder: Path) -> Mapping[str, str]:
    """Return an environment in which the program ``docker``, which faas-cli runs, is *engine*."""
    shims = folder / "bin"
    shims.mkdir(parents=True, exist_ok=True)
    shim = shims / "docker"
    shim.unlink(missing_ok=True)
    shim.symlink_to(str(shutil.which(engine.program)))
    return {**engine.environ, "PATH": f"{shims}:{os.environ['PATH']}"}


def _containers_conf() -> str:
    limits = {"nofile": (resource.RLIMIT_NOFILE, FILES), "nproc": (resource.RLIMIT_NPROC, PROCESSES)}
    ulimits = [f'"{name}={_limit(*wanted)}"' for name, wanted in limits.items()]
    engine = ['events_logger = "file"']
    if not Path("/sys/fs/cgroup/cgroup.controllers").exists() and shutil.which("runc"):
        engine.append('runtime = "runc"')
    if not Path("/run/systemd/system").exists():
        engine.append('cgroup_manager = "cgroupfs"')
    return CONTAINERS_CONF.format(ulimits=", ".join(ulimits), engine="\n".join(engine))


def _limit(kind: int, wanted: int) -> str:
    hard = resource.getrlimit(kind)[1]
    value = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    return f"{value}:{value}"


def _is_podman(program: str) -> bool:
    """Tell whether *program* is Podman under another name, as Debian's package podman-docker installs it."""
    done = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    return "podman" in done.stdout.lower()


def _answers(command: Sequence[str]) -> bool:
    try:
        return not subprocess.run(command, capture_output=True, timeout=ANSWER_SECONDS, check=False).returncode
    except subprocess.TimeoutExpired:
        return False

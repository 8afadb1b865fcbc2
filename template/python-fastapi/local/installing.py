"""Run the steps of an installation: one at a time in a project, with its environment, and what its failure means."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

STEP_SECONDS = 900.0
LOCK_POLL_SECONDS = 0.2
SHOWN_LINES = 15
LEFT_OUT = (
    "PYTHONPATH",
    "PYTHONHOME",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_USER",
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_PYTHON",
)
"""Settings of the user's own pip and Python that would send packages somewhere else than the environment."""
NO_NETWORK = (
    "NewConnectionError",
    "NameResolutionError",
    "ConnectTimeoutError",
    "ProxyError",
    "ConnectionError",
)


class InstallError(Exception):
    """An environment could not be made; the message names the step and the remedy."""

    def __init__(self, step: str, reason: str) -> None:
        self.step = step
        super().__init__(f"{step}: {reason}")


class Installation:
    """Run steps as processes, and report each with its seconds."""

    def __init__(self, report: Callable[[str], None]) -> None:
        self._report = report
        self._child: subprocess.Popen[str] | None = None
        self._inherited: tuple[int, ...] = ()
        self.stopped = False

    def run(self, title: str, command: Sequence[str]) -> None:
        """Run one step to its end; raise `InstallError` when it fails."""
        started = time.monotonic()
        if self.stopped:
            raise InstallError(title, "stopped")
        status, output = self._run(title, command)
        if self.stopped:
            raise InstallError(title, "stopped")
        if status != 0:
            raise failure_of(title, output)
        self._report(f"  {title}: {time.monotonic() - started:.1f} s")

    def stop(self) -> None:
        """End the step that runs and begin no other."""
        self.stopped = True
        if self._child is not None:
            _kill_group(self._child)

    @contextmanager
    def exclusive(self, path: Path) -> Iterator[None]:
        """
        Hold the lock file *path*: two ``up`` of one project must not write the same environment.

        There is no deadline but `stop`: the holder's steps have theirs, and the system frees the lock of the dead.
        """
        with path.open("w") as lock:
            while not _locked(lock):
                if self.stopped:
                    raise InstallError("environment", "stopped")
                time.sleep(LOCK_POLL_SECONDS)
            self._inherited = (lock.fileno(),)
            yield

    def _run(self, title: str, command: Sequence[str]) -> tuple[int, str]:
        self._child = child = subprocess.Popen(  # the command is our own
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=pip_environ(os.environ),
            # pip has children, which would go on without it.
            start_new_session=True,
            # It holds the lock too: if this process is killed, the next one waits until pip has ended.
            pass_fds=self._inherited,
        )
        if self.stopped:
            # Told while the process was being made, and nobody knew it yet.
            _kill_group(child)
        try:
            output, _ = child.communicate(timeout=STEP_SECONDS)
        except subprocess.TimeoutExpired as error:
            raise InstallError(title, f"not finished after {STEP_SECONDS:.0f} s") from error
        finally:
            # Ctrl-C and the deadline leave it running otherwise.
            if child.returncode is None:
                _kill_group(child)
                child.wait()
        return child.returncode, output


def _kill_group(child: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)


def _locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def require_venv() -> None:
    """Raise `InstallError` where Debian's packaging has left ``venv`` or ``ensurepip`` out."""
    if any(importlib.util.find_spec(module) is None for module in ("venv", "ensurepip")):
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise InstallError(
            "virtual environment",
            f"this Python ({sys.executable}) has no venv or ensurepip."
            f" On Debian and Ubuntu: sudo apt install python3-venv, or python{version}-venv",
        )


def pip_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment for pip: the user's index, proxy and certificates, quiet and with few retries."""
    defaults = {
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        "PIP_QUIET": "1",
        "PIP_RETRIES": "2",
    }
    return defaults | {name: value for name, value in environ.items() if name not in LEFT_OUT}


def failure_of(step: str, output: str) -> InstallError:
    """Return the error for a step that wrote *output* and failed."""
    end = "\n".join(output.strip().splitlines()[-SHOWN_LINES:])
    if any(sign in output for sign in NO_NETWORK):
        remedy = (
            "the package index does not answer. Check the network and proxy (HTTPS_PROXY, PIP_INDEX_URL), or name"
            " an interpreter that has the packages: --python PATH"
        )
        return InstallError(step, f"{remedy}\n{end}")
    return InstallError(step, f"failed\n{end}")

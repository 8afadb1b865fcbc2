"""The virtual environments of a project, one for the gateway and one for each set of requirements of its functions."""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from installing import Installation, require_venv

COMPLETE = "complete"
"""A file inside each finished environment: one without it was interrupted, and is made anew."""
KEPT_DAYS = 14
"""An environment that no ``up`` has used for so long is removed when the next one is made."""


class Environments:
    """Make environments below *folder*, each under a hash of what went in, so that it is made once."""

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        self._folder = folder
        self._report = report
        self._installation = Installation(report)

    def for_gateway(self, requirements: Path) -> Path:
        """Return the interpreter of an environment that holds *requirements*, which are hash-locked."""

        def install(folder: Path) -> None:
            self._installation.run("virtual environment", [sys.executable, "-m", "venv", str(folder)])
            pip = [str(interpreter(folder)), "-m", "pip"]
            self._installation.run("gateway", [*pip, "install", "--require-hashes", "-r", str(requirements)])

        return self._made("gateway", [requirements.read_bytes()], install)

    def for_function(self, name: str, base: Path, requirements: Path) -> Path:
        """
        Return the interpreter of an environment that holds the base's and the function's *requirements*.

        Functions with the same requirements share one.  Raises `InstallError` with the end of pip's output.
        """
        lock = base / "requirements.txt"
        wanted = requirement_lines(requirements)

        def install(folder: Path) -> None:
            # The gateway's pip does the work: an environment without one of its own is made in no time.
            venv = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
            self._installation.run("virtual environment", venv)
            pip = [sys.executable, "-m", "pip", "--python", str(interpreter(folder)), "install"]
            self._installation.run("the base's packages", [*pip, "--require-hashes", "-r", str(lock)])
            # A copy, since a build may write into the folder that it builds from.
            source = folder / "faasbase"
            shutil.copytree(base, source, ignore=shutil.ignore_patterns("__pycache__", ".?*"))
            self._installation.run("faasbase", [*pip, "--no-deps", str(source)])
            if wanted:
                # faasbase stands in no public index: named with its folder, a stranger's of that name is never taken.
                named = [f"faasbase @ {source.as_uri()}", "-r", str(requirements)]
                self._installation.run(f"requirements of {name}", [*pip, *named])

        inputs = [lock.read_bytes(), (base / "pyproject.toml").read_bytes(), wanted]
        return self._made("functions", inputs, install)

    @property
    def stopped(self) -> bool:
        """Tell whether `stop` was called."""
        return self._installation.stopped

    def stop(self) -> None:
        """End an installation that is under way and begin no other; it raises `InstallError` in its thread."""
        self._installation.stop()

    def _made(self, kind: str, inputs: Sequence[bytes], install: Callable[[Path], None]) -> Path:
        folder = self._folder / f"{kind}-{_key(inputs)}"
        complete = folder / COMPLETE
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._installation.exclusive(self._folder / "lock"):
            if not (complete.exists() and interpreter(folder).exists()):
                require_venv()
                self._report(f"making an environment for the {kind}, once")
                shutil.rmtree(folder, ignore_errors=True)
                install(folder)
                self._remove_unused()
            complete.touch()
        return interpreter(folder)

    def _remove_unused(self) -> None:
        oldest = time.time() - KEPT_DAYS * 86400
        for complete in self._folder.glob(f"*/{COMPLETE}"):
            with suppress(FileNotFoundError):
                if complete.stat().st_mtime < oldest:
                    shutil.rmtree(complete.parent, ignore_errors=True)


def interpreter(folder: Path) -> Path:
    """Return the interpreter of the environment in *folder*."""
    return folder / "bin" / "python"


def requirement_lines(path: Path) -> bytes:
    """Return the lines of a requirements file that ask for something, with the files they name; b"" if none does."""
    if not path.exists():
        return b""
    lines = [line.strip() for line in path.read_text().splitlines()]
    wanted = [line for line in lines if line and not line.startswith("#")]
    named = [line.split(maxsplit=1)[1] for line in wanted if line.startswith(("-r ", "-c "))]
    return "\n".join(wanted).encode() + b"".join(requirement_lines(path.parent / name) for name in named)


def _key(inputs: Sequence[bytes]) -> str:
    digest = hashlib.sha256(f"{sys.version} {sys.base_prefix}".encode())
    for part in inputs:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]

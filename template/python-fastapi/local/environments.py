"""
The virtual environments of a project: the gateway's, the base's, and one for each set of requirements of its functions.

Those of functions begin as the base's, file for file, so that only what a function adds has to be installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from installing import Installation, InstallError, require_venv
from requirement_files import RequirementFiles, read_requirements

COMPLETE = "complete"
"""A file inside each finished environment: one without it was interrupted, and is made anew."""
USERS = "users"
"""A folder inside each environment of functions, with an empty file for each function that uses it."""
INSTALLED = {"bin", "include", "lib", "lib64", "pyvenv.cfg"}
"""What a virtual environment consists of."""
KEPT_DAYS = 14
"""An environment that no ``up`` has used for so long is removed when the next one is made."""


class Environments:
    """Make environments below *folder*, each under a hash of what went in, so that it is made once."""

    def __init__(self, folder: Path, report: Callable[[str], None]) -> None:
        self._folder = folder
        self._report = report
        self._installation = Installation(report)
        self._held: dict[Path, TextIO] = {}

    def for_gateway(self, requirements: Path) -> Path:
        """Return the interpreter of an environment that holds *requirements*, which are hash-locked."""
        wanted = read_requirements(requirements)

        def install(folder: Path) -> None:
            self._installation.run("virtual environment", [sys.executable, "-m", "venv", str(folder)])
            pip = [str(interpreter(folder)), "-m", "pip"]
            lock = wanted.write(folder / "wanted")
            self._installation.run("gateway", [*pip, "install", "--require-hashes", "-r", str(lock)])

        return interpreter(self._made("gateway", [wanted.wanted], install))

    def for_function(self, name: str, base: Path, requirements: Path) -> Path:
        """
        Return the interpreter of an environment that holds the base's and the function's *requirements*.

        Functions with the same requirements share one.  What is installed are the files as they are now, whatever
        becomes of them meanwhile.  Raises `InstallError` with the end of pip's output.
        """
        # All is read before the first step: its hash names the environment, so that nothing else may get in.
        lock, wanted = read_requirements(base / "requirements.txt"), read_requirements(requirements)
        build = (base / "pyproject.toml").read_bytes()
        shared = self._made("base", [lock.wanted, build], lambda folder: self._install_base(base, build, lock, folder))

        def install(folder: Path) -> None:
            # Links, and not copies: pip replaces files and writes into none.
            shutil.copytree(shared, folder, symlinks=True, copy_function=os.link, ignore=_not_installed)
            self._install_wanted(name, wanted, next((shared / "wheel").glob("*.whl")), folder)

        made = self._made("functions", [lock.wanted, build, wanted.wanted], install, user=name)
        return interpreter(made)

    @property
    def stopped(self) -> bool:
        """Tell whether `stop` was called."""
        return self._installation.stopped

    def stop(self) -> None:
        """End an installation that is under way and begin no other; it raises `InstallError` in its thread."""
        self._installation.stop()

    def remove_unused(self) -> int:
        """
        Remove the environments that no function uses any more, and return how many; call it last.

        One that another ``up`` uses now is left, and while that installs, all are.
        """
        while self._held:
            self._held.popitem()[1].close()
        removed = 0
        with suppress(InstallError, FileNotFoundError), self._installation.exclusive(self._folder / "lock"):
            for folder in self._folder.glob("functions-*"):
                if not any(folder.glob(f"{USERS}/*")):
                    removed += _removed(folder)
        return removed

    def _install_base(self, base: Path, build: bytes, lock: RequirementFiles, folder: Path) -> None:
        # The gateway's pip does the work: an environment without one of its own is made in no time.
        venv = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
        self._installation.run("virtual environment", venv)
        pip = _pip(folder)
        locked = ["--require-hashes", "-r", str(lock.write(folder / "base"))]
        self._installation.run("the base's packages", [*pip, "install", *locked])
        wheel = self._build(pip, base, build, folder)
        self._installation.run("faasbase", [*pip, "install", "--no-deps", str(wheel)])

    def _build(self, pip: Sequence[str], base: Path, build: bytes, folder: Path) -> Path:
        """Return a wheel of the base, made with the tool of its own locked list, so that pip fetches none unseen."""
        # From a copy, since a build may write into the folder that it builds from.
        source = folder / "faasbase"
        shutil.copytree(base, source, ignore=shutil.ignore_patterns("__pycache__", ".?*"))
        (source / "pyproject.toml").write_bytes(build)
        options = ["--no-deps", "--no-build-isolation", "--wheel-dir", str(folder / "wheel")]
        self._installation.run("faasbase's wheel", [*pip, "wheel", *options, str(source)])
        return next((folder / "wheel").glob("*.whl"))

    def _install_wanted(self, name: str, wanted: RequirementFiles, wheel: Path, folder: Path) -> None:
        if wanted.wanted:
            # faasbase stands in no public index: named with its file, a stranger's of that name is never taken.
            named = [f"faasbase @ {wheel.as_uri()}", "-r", str(wanted.write(folder / "wanted"))]
            self._installation.run(f"requirements of {name}", [*_pip(folder), "install", *named])

    def _made(
        self, kind: str, inputs: Sequence[bytes], install: Callable[[Path], None], user: str | None = None
    ) -> Path:
        folder = self._folder / f"{kind}-{_key(inputs)}"
        complete = folder / COMPLETE
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._installation.exclusive(self._folder / "lock"):
            if not (complete.exists() and interpreter(folder).exists()):
                require_venv()
                self._report(f"making an environment for the {kind}, once")
                shutil.rmtree(folder, ignore_errors=True)
                install(folder)
                self._remove_old()
            complete.touch()
            self._hold(folder)
            if user is not None:
                self._note(user, folder)
        return folder

    def _hold(self, folder: Path) -> None:
        """Keep another ``up`` from removing the environment while this process lives."""
        if folder not in self._held:
            self._held[folder] = held = (folder / COMPLETE).open()
            fcntl.flock(held, fcntl.LOCK_SH)

    def _note(self, user: str, folder: Path) -> None:
        """Write down that a function uses this environment, and no longer another."""
        for old in self._folder.glob(f"functions-*/{USERS}/{user}"):
            old.unlink(missing_ok=True)
        (folder / USERS).mkdir(exist_ok=True)
        (folder / USERS / user).touch()

    def _remove_old(self) -> None:
        oldest = time.time() - KEPT_DAYS * 86400
        for complete in self._folder.glob(f"*/{COMPLETE}"):
            if complete.stat().st_mtime < oldest:
                _removed(complete.parent)


def interpreter(folder: Path) -> Path:
    """Return the interpreter of the environment in *folder*."""
    return folder / "bin" / "python"


def _pip(folder: Path) -> list[str]:
    return [sys.executable, "-m", "pip", "--python", str(interpreter(folder))]


def _not_installed(folder: str, names: Sequence[str]) -> set[str]:
    """Leave out what the base's environment was made of, and what tells that it is complete."""
    return set(names) - INSTALLED if (Path(folder) / COMPLETE).exists() else set()


def _removed(folder: Path) -> bool:
    """Remove an environment, unless a process holds it."""
    # One without the file was left half-made, and those who make one have the lock that the caller has.
    with suppress(FileNotFoundError), (folder / COMPLETE).open("r+") as complete:
        try:
            fcntl.flock(complete, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    shutil.rmtree(folder, ignore_errors=True)
    return True


def _key(inputs: Sequence[bytes]) -> str:
    digest = hashlib.sha256(f"{sys.version} {sys.base_prefix}".encode())
    for part in inputs:
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:16]

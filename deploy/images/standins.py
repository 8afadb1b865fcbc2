"""
Stand-ins for base images that cannot be pulled: Debian's own Python, made by debootstrap.

They go where any site with a registry of its own puts its images: into the build arguments PYTHON_IMAGE and
WATCHDOG_IMAGE.  A stand-in trusts the certificate authorities that this machine trusts, and where one is used, that is
said.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from .engine import Engine, EngineError

PYTHON_IMAGE = "docker.io/library/python:3.13-slim-trixie"
WATCHDOG_IMAGE = "ghcr.io/openfaas/of-watchdog:0.11.6"
PYTHON_STAND_IN = "localhost/stand-in/python:3.13-trixie"
WATCHDOG_STAND_IN = "localhost/stand-in/of-watchdog"
PACKAGES = "ca-certificates,python3,python3-pip,python3-venv"
BOOTSTRAP_SECONDS = 900.0
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def base_images(engine: Engine) -> dict[str, str]:
    """Return the build arguments that name base images which *engine* has: the official ones, or stand-ins."""
    return {"PYTHON_IMAGE": python_image(engine), "WATCHDOG_IMAGE": watchdog_image(engine)}


def python_image(engine: Engine) -> str:
    """Return the name of a Python image: $PYTHON_IMAGE, the official one, or a stand-in of Debian 13's Python."""
    return os.environ.get("PYTHON_IMAGE") or python_or_stand_in(engine, PYTHON_IMAGE, PYTHON_STAND_IN, "trixie")


def python_or_stand_in(engine: Engine, official: str, stand_in: str, suite: str) -> str:
    """Return which of two images of Python is to be had: what is there is taken first, and *stand_in* made last."""
    if engine.has(official) or (not engine.has(stand_in) and engine.pull(official)):
        return official
    _tell(stand_in, official)
    return debian_python(engine, stand_in, suite)


def watchdog_image(engine: Engine) -> str:
    """Return the name of an image with of-watchdog, or an empty one where the program is not to be had."""
    if wanted := os.environ.get("WATCHDOG_IMAGE"):
        return wanted
    program = shutil.which("of-watchdog")
    stand_in = f"{WATCHDOG_STAND_IN}:{_digest(Path(program))}" if program else ""
    there = bool(stand_in) and engine.has(stand_in)
    if engine.has(WATCHDOG_IMAGE) or (not there and engine.pull(WATCHDOG_IMAGE)):
        return WATCHDOG_IMAGE
    if program:
        _tell(stand_in, WATCHDOG_IMAGE)
        _image_of_watchdog(engine, Path(program), stand_in)
    return stand_in


def debian_python(engine: Engine, image: str, suite: str) -> str:
    """
    Make *image* of the Python of Debian's *suite*, unless it is there, and return its name.

    Raises:
        EngineError: debootstrap is missing, or it failed.
    """
    with _alone(image):
        if not engine.has(image):
            _bootstrap(engine, image, suite)
    return image


def _bootstrap(engine: Engine, image: str, suite: str) -> None:
    if not shutil.which("debootstrap"):
        raise EngineError(f"{image} cannot be made: debootstrap is not on this machine")
    print(f"{image} is made of Debian {suite}", flush=True)
    with tempfile.TemporaryDirectory(prefix="stand-in-") as folder:
        root = Path(folder) / "root"
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(root)]
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BOOTSTRAP_SECONDS,
            check=False,
        )
        if done.returncode:
            raise EngineError(f"debootstrap ended with {done.returncode}: {done.stdout[-2000:]}")
        _tidy(root)
        _import(engine, root, image)


def _tidy(root: Path) -> None:
    """Leave out what official images do not have either, and trust whom this machine trusts."""
    for folder in ("var/cache/apt/archives", "var/lib/apt/lists", "var/log"):
        shutil.rmtree(root / folder)
        (root / folder).mkdir()
    if CERTIFICATES.exists():
        shutil.copyfile(CERTIFICATES, root / CERTIFICATES.relative_to("/"))


def _import(engine: Engine, root: Path, image: str) -> None:
    with tempfile.TemporaryDirectory(prefix="stand-in-") as folder:
        archive = Path(folder) / "root.tar"
        subprocess.run(["tar", "-C", str(root), "-cf", str(archive), "."], timeout=BOOTSTRAP_SECONDS, check=True)
        engine.run("import", str(archive), image, timeout_seconds=BOOTSTRAP_SECONDS)


def _image_of_watchdog(engine: Engine, program: Path, image: str) -> None:
    with _alone(image), tempfile.TemporaryDirectory(prefix="of-watchdog-") as folder:
        if not engine.has(image):
            root = Path(folder) / "root"
            root.mkdir()
            shutil.copy2(program, root / "fwatchdog")
            (root / "fwatchdog").chmod(0o755)
            _import(engine, root, image)


def _digest(program: Path) -> str:
    return hashlib.sha256(program.read_bytes()).hexdigest()[:16]


@contextlib.contextmanager
def _alone(image: str) -> Iterator[None]:
    """Keep others, such as the workers of a test run, from making *image* at the same time; they find it made."""
    name = f"{re.sub(r'[^a-z0-9.]+', '-', image)}-{os.getuid()}.lock"
    with (Path(tempfile.gettempdir()) / name).open("a") as file:
        # Whoever holds it has deadlines of its own, and a process that ends lets go.
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _tell(stand_in: str, official: str) -> None:
    print(f"{stand_in} stands in for {official}", flush=True)

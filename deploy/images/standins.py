"""
Stand-ins for base images that cannot be pulled: Debian's own Python, made by debootstrap.

They go where any site with a registry of its own puts its images: into the build arguments PYTHON_IMAGE and
WATCHDOG_IMAGE.  A stand-in trusts the certificate authorities that this machine trusts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from .engine import Engine, EngineError

PYTHON_IMAGE = "docker.io/library/python:3.13-slim-trixie"
WATCHDOG_IMAGE = "ghcr.io/openfaas/of-watchdog:0.11.6"
PYTHON_STAND_IN = "localhost/stand-in/python:3.13-trixie"
WATCHDOG_STAND_IN = "localhost/stand-in/of-watchdog:local"
PACKAGES = "ca-certificates,python3,python3-pip,python3-venv"
BOOTSTRAP_SECONDS = 900.0
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


def base_images(engine: Engine) -> dict[str, str]:
    """Return the build arguments that name base images which *engine* has: the official ones, or stand-ins."""
    return {"PYTHON_IMAGE": python_image(engine), "WATCHDOG_IMAGE": watchdog_image(engine)}


def python_image(engine: Engine) -> str:
    """Return the name of a Python image: $PYTHON_IMAGE, the official one, or a stand-in of Debian 13's Python."""
    if wanted := os.environ.get("PYTHON_IMAGE"):
        return wanted
    if engine.has(PYTHON_STAND_IN) or not (engine.has(PYTHON_IMAGE) or engine.pull(PYTHON_IMAGE)):
        return debian_python(engine, PYTHON_STAND_IN, "trixie")
    return PYTHON_IMAGE


def watchdog_image(engine: Engine) -> str:
    """Return the name of an image with of-watchdog, or an empty one where the program is not to be had."""
    if wanted := os.environ.get("WATCHDOG_IMAGE"):
        return wanted
    if program := shutil.which("of-watchdog"):
        return _image_of_watchdog(engine, Path(program))
    return WATCHDOG_IMAGE if engine.has(WATCHDOG_IMAGE) or engine.pull(WATCHDOG_IMAGE) else ""


def debian_python(engine: Engine, image: str, suite: str) -> str:
    """Make *image* of the Python of Debian's *suite*, unless it is there, and return its name."""
    if engine.has(image):
        return image
    print(f"No official image of Python can be pulled: {image} is made of Debian {suite}", flush=True)
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
    return image


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


def _image_of_watchdog(engine: Engine, program: Path) -> str:
    with tempfile.TemporaryDirectory(prefix="of-watchdog-") as folder:
        root = Path(folder) / "root"
        root.mkdir()
        shutil.copy2(program, root / "fwatchdog")
        (root / "fwatchdog").chmod(0o755)
        _import(engine, root, WATCHDOG_STAND_IN)
    return WATCHDOG_STAND_IN

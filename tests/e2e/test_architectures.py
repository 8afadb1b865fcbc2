"""Images can be built for both architectures of OpenFaaS: what is locked has files for each, and no file names one."""

from __future__ import annotations

import re
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from tests.staging import BASE, ROOT, TEMPLATE

LOCKS = ("requirements.txt", "requirements-testing.txt")
ARCHITECTURES = ("x86_64", "aarch64")
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
BUILD_FILES = (
    ROOT / "Dockerfile",
    TEMPLATE / "Dockerfile",
    TEMPLATE / "template.yml",
    *sorted((BASE / "image").glob("*.[ps]*")),
)
NAMES_AN_ARCHITECTURE = re.compile(r"amd64|x86.64|arm64|aarch64|armhf|multiarch|linux-gnu")


@pytest.mark.parametrize(("lock", "architecture", "python"), [*product(LOCKS, ARCHITECTURES, PYTHONS)])
def test_every_locked_requirement_has_a_wheel(lock: str, architecture: str, python: str, tmp_path: Path) -> None:
    """No image needs a compiler for the base, and the hash of the wheel that it takes is in the list."""
    where = ["--target", str(tmp_path), "--python-platform", f"{architecture}-unknown-linux-gnu"]
    # Whom this machine trusts, as pip does.
    rules = ["--system-certs", "--no-build", "--no-deps", "--require-hashes", "--python-version", python]
    done = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "install", "--quiet", *where, *rules, "--requirements", str(BASE / lock)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    modules = [path.name for path in (tmp_path / "uvloop").glob("loop.*.so")]
    assert modules == [f"loop.cpython-{python.replace('.', '')}-{architecture}-linux-gnu.so"]


@pytest.mark.parametrize("path", BUILD_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_build_file_names_an_architecture(path: Path) -> None:
    """What is built for is what the engine says."""
    assert not NAMES_AN_ARCHITECTURE.findall(path.read_text())

"""
The template on every Python that the base supports.

Images of 3.11, 3.13 and 3.14 are built and run, on the official images where they can be pulled and else on stand-ins
of Debian's suites.  No suite has a Python 3.12: without its official image an interpreter of this machine installs,
imports and serves the same, and where there is none either, the locked wheels are only fetched for it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from deploy.images.engine import Engine
from deploy.images.standins import python_or_stand_in
from tests.child import Process
from tests.e2e.conftest import Build
from tests.e2e.containers import run_container
from tests.processes import Running, function_environ
from tests.staging import BASE, TEMPLATE, stage
from tests.wire import HOST, call

pytestmark = pytest.mark.anyio

SUITES = {"3.11": "bookworm", "3.13": "trixie", "3.14": "testing"}
INSTALL_SECONDS = 300.0
TESTED = {
    "handler_test.py": """\
from faasbase.testing import client
from . import handler

def test_greets_by_name():
    with client(handler) as function:
        assert function.post("/", json={"name": "Ada"}).json() == {"message": "Hello, Ada!"}
"""
}
"""The function that ``new`` hands out, with a test, so that the build needs what tests import as well."""
IMPORT_ALL = """\
import importlib, pkgutil, sys, faasbase
names = {module.name for module in pkgutil.walk_packages(faasbase.__path__, "faasbase.")} - {*sys.argv[1:]}
for name in names:
    importlib.import_module(name)
print(*sys.version_info[:2], len(names), sep=".")
"""
MODULES = sum(1 for path in (BASE / "faasbase").rglob("*.py") if path != BASE / "faasbase" / "__init__.py")


@pytest.mark.parametrize("version", SUITES)
async def test_image_of_a_python_imports_all_of_the_base_and_serves(
    engine: Engine, build: Build, version: str, record_property: Callable[[str, object], None]
) -> None:
    """The template's own base stage is built on it, and the function that ``new`` hands out."""
    suite = SUITES[version]
    stand_in = f"localhost/stand-in/python:{version}-{suite}"
    python = python_or_stand_in(engine, official_image(version), stand_in, suite)
    healthy_seconds = await assert_image_works(engine, build, python, version)
    record_property("measured", f"new function on {python}: healthy after {healthy_seconds:.2f} s")


async def test_python_3_12_installs_imports_and_serves(engine: Engine, build: Build, tmp_path: Path) -> None:
    """In an image, by an interpreter of this machine, or by its wheels alone, as far as these can be had."""
    image = official_image("3.12")
    if engine.has(image) or engine.pull(image):
        await assert_image_works(engine, build, image, "3.12")
    elif interpreter := interpreter_of_this_machine("3.12"):
        await assert_environment_works(install(interpreter, tmp_path / "environment"), "3.12")
    else:
        fetch_wheels("3.12", tmp_path)


def official_image(version: str) -> str:
    """Return the name under which Python *version* is published."""
    return f"docker.io/library/python:{version}-slim"


async def assert_image_works(engine: Engine, build: Build, python: str, version: str) -> float:
    """Build and run on the image *python*; return the seconds from its start until it was healthy."""
    image = build(TESTED, f"hello-{version}", base="base", PYTHON_IMAGE=python)
    with run_container(engine, image) as container:
        healthy_seconds = container.wait_healthy()
        # The image has all extras but the one that tests need.
        imported = container.exec("python", "-c", IMPORT_ALL, "faasbase.testing")
        assert imported.strip() == f"{version}.{MODULES - 1}"
        await assert_greets(container.port, container.address)
    return healthy_seconds


async def assert_environment_works(python: Path, version: str) -> None:
    """Run the same as a process of this machine, by the interpreter of an environment."""
    assert run([str(python), "-c", IMPORT_ALL]).strip() == f"{version}.{MODULES}"

    def start(folder: Path) -> Process:
        folder.mkdir()
        # Only what is installed is there, as in an image.
        environ = {name: value for name, value in function_environ(folder, {}).items() if name != "PYTHONPATH"}
        return Process(stage(TEMPLATE / "function", folder), [str(python), "index.py"], environ)

    async with Running(start) as process:
        await assert_greets(process.port)


async def assert_greets(port: int, host: str = HOST) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await call(port, host=host, method="POST", headers=headers, body=b'{"name": "Ada"}')
    assert (answer.status, answer.json()) == (200, {"message": "Hello, Ada!"})


def interpreter_of_this_machine(version: str) -> Path | None:
    """Return an interpreter of *version* that starts, from PATH or beside others of pyenv's."""
    found = [Path(path) for path in [shutil.which(f"python{version}")] if path]
    found += sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
    return next((path for path in found if starts(path)), None)


def starts(python: Path) -> bool:
    command = [str(python), "-c", "import venv"]
    return not subprocess.run(command, capture_output=True, timeout=INSTALL_SECONDS, check=False).returncode


def install(interpreter: Path, folder: Path) -> Path:
    """Install what the template has locked, then the base, into an environment; return its interpreter."""
    run([str(interpreter), "-m", "venv", "--without-pip", str(folder)])
    python = folder / "bin" / "python3"
    pip = [sys.executable, "-m", "pip", "--quiet", "--python", str(python), "install"]
    locks = [flag for lock in ("requirements.txt", "requirements-testing.txt") for flag in ("-r", str(BASE / lock))]
    run([*pip, "--only-binary=:all:", "--require-hashes", *locks])
    # From a copy: a build leaves files beside its sources.
    base = shutil.copytree(BASE, folder / "base", ignore=shutil.ignore_patterns("__pycache__"))
    run([*pip, "--no-deps", "--no-build-isolation", str(base)])
    return python


def fetch_wheels(version: str, folder: Path) -> None:
    """Fetch every locked wheel for *version*; fails where one is not to be had or has another hash."""
    options = ["--python-version", version, "--only-binary=:all:", "--no-deps", "--require-hashes"]
    options += [flag for lock in ("requirements.txt", "requirements-testing.txt") for flag in ("-r", str(BASE / lock))]
    run([sys.executable, "-m", "pip", "--quiet", "download", *options, "--dest", str(folder)])


def run(command: Sequence[str]) -> str:
    """Run *command* and return what it prints; show the rest where it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False)
    assert done.returncode == 0, f"{command[:4]} ended with {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout

"""What the embedded OpenFaaS installs, and what it says where it cannot."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from tests.local_up import Up, local_module, make_project, processes_below, run_up, wait_until
from tests.staging import TEMPLATE
from tests.wire import call

pytestmark = pytest.mark.anyio

HANDLER = """
import importlib.metadata
import sys

async def handle() -> dict[str, str]:
    return {"python": sys.prefix, "faasbase": importlib.metadata.version("faasbase")}
"""
NO_VENV = """
import sys
sys.modules["ensurepip"] = None
sys.path.insert(0, sys.argv[1])
import installing
try:
    installing.require_venv()
except installing.InstallError as error:
    print(error)
"""


def write_package_of_a_stranger(folder: Path) -> None:
    """Write a wheel that calls itself faasbase, in a version that every index would prefer."""
    folder.mkdir()
    info = "faasbase-99.0.dist-info"
    with zipfile.ZipFile(folder / "faasbase-99.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("faasbase/__init__.py", "raise SystemExit('a stranger was let in')\n")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: faasbase\nVersion: 99.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.mark.timeout(300)
async def test_first_start_installs_and_the_second_takes_a_second(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"fn": HANDLER, "same": HANDLER})
    for name in ("fn", "same"):
        (project / name / "requirements.txt").write_text("# what it needs\nfaasbase\n")
    write_package_of_a_stranger(tmp_path / "strangers")
    links = f"{tmp_path / 'strangers'} {os.environ.get('PIP_FIND_LINKS', '')}"
    with Up(project, ["--port", "0"], {"PIP_FIND_LINKS": links}, start_seconds=240) as local:
        seen = (await call(local.port, "/function/fn")).json()
        assert seen["python"].startswith(str(project.resolve() / "build/.local/environments/"))
        assert seen["faasbase"] != "99.0"
        # Functions with the same requirements share an environment, made once.
        assert (await call(local.port, "/function/same")).json() == seen
        assert local.output().count("making an environment for the functions, once") == 1
        assert "requirements of " in local.output()
        # What only the stranger could satisfy is not installed, and the process before it goes on.
        (project / "same" / "requirements.txt").write_text("faasbase>=50\n")
        await local.says("same: the change does not start", timeout_seconds=120)
        assert "ResolutionImpossible" in local.output()
        assert (await call(local.port, "/function/same")).json() == seen
        (project / "same" / "requirements.txt").write_text("faasbase\n")
        await local.says("same: replaced")
    started = time.monotonic()
    with Up(project, ["--port", "0"], {}) as local:
        assert time.monotonic() - started < 5
        assert "making" not in local.output()
        assert (await call(local.port, "/function/fn")).json() == seen


@pytest.mark.timeout(120)
def test_index_that_does_not_answer_is_said_with_a_way_out(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"fn": HANDLER})
    environ = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_FIND_LINKS": "", "PIP_NO_CACHE_DIR": "1"}
    ended = run_up(project, "--port", "0", **environ)
    assert ended.returncode == 1
    assert "the package index does not answer" in ended.stderr
    assert "--python PATH" in ended.stderr
    # An environment that was not finished is not taken for one.
    assert not list((project / "build").rglob("complete"))


def test_interrupt_ends_an_installation_with_all_its_processes(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"fn": HANDLER})
    local = Up(project, ["--port", "0"], {})
    try:
        wait_until(lambda: len(processes_below(project)) > 1, "installing")
        local.send_signal(signal.SIGINT)
        assert local.wait(5) == 130
        wait_until(lambda: not processes_below(project), "all ended", 1.5)
        assert not list((project / "build").rglob("complete"))
    finally:
        local.stop()


def test_python_without_venv_is_told_which_package_to_install() -> None:
    said = subprocess.run(
        [sys.executable, "-c", NO_VENV, TEMPLATE / "local"],
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    assert "sudo apt install python3-venv" in said.stdout


def test_older_python_can_read_the_file_that_refuses_it() -> None:
    source = (TEMPLATE / "local" / "__main__.py").read_text()
    ast.parse(source, feature_version=(3, 7))
    assert "3.11 or newer" in source


def test_interpreter_that_is_not_there_is_refused(tmp_path: Path) -> None:
    ended = run_up(make_project(tmp_path, {}), "--python", "/nowhere/python")
    assert ended.returncode == 2
    assert "/nowhere/python is not a program" in ended.stderr


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", b""),
        ("# only a comment\n\n", b""),
        ("redis\n# why\n  httpx2>=2\n", b"redis\nhttpx2>=2"),
        ("-r more.txt\n", b"-r more.txtpillow"),
        ("-r absent.txt\n", b"-r absent.txt"),
    ],
)
def test_environment_depends_on_the_requirements_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, lines: bytes
) -> None:
    (tmp_path / "more.txt").write_text("pillow\n")
    (tmp_path / "requirements.txt").write_text(text)
    environments = local_module("environments", monkeypatch)
    assert environments.requirement_lines(tmp_path / "requirements.txt") == lines

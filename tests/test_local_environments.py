"""What the embedded OpenFaaS installs, and what it says where it cannot."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

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


IN_TREE = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = """
import zipfile

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = "faasbase-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel_directory + "/" + name, "w") as wheel:
        info = "faasbase-1.0.dist-info/"
        wheel.writestr("faasbase/__init__.py", "")
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: faasbase\\nVersion: 1.0\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        wheel.writestr(info + "RECORD", "")
    return name
"""


def write_wheel(folder: Path, name: str, version: str, code: str = "") -> None:
    """Write a wheel of one package."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", code)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.mark.timeout(300)
async def test_first_start_installs_and_the_second_takes_a_second(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"fn": HANDLER, "same": HANDLER})
    for name in ("fn", "same"):
        (project / name / "requirements.txt").write_text("# what it needs\nfaasbase\n")
    # A package that calls itself faasbase, in a version that every index would prefer.
    write_wheel(tmp_path / "strangers", "faasbase", "99.0", "raise SystemExit('a stranger was let in')\n")
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
    assert "removed 1 environment that no function uses any more" in local.output()
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
        ("-r more.txt\n", b"-r included-1.txt\npillow"),
        ("--requirement=more.txt  # those too\nredis", b"--requirement included-1.txt\nredis\npillow"),
        ("-c 'odd name.txt'\n-cmore.txt\n", b"-c included-1.txt\n-c included-2.txt\nflask<9\npillow"),
        ("-r round.txt\n", b"-r included-1.txt\n-r included-1.txt\n-r requirements.txt"),
        ("-r https://example.com/x.txt\n", b"-r https://example.com/x.txt"),
        ("--index-url https://example.com/simple\n", b"--index-url https://example.com/simple"),
        ("-f elsewhere\n", b"-f elsewhere"),
        ("\ufeffredis\n", b"redis"),
        ("\udcff\n", b"\xff"),
    ],
)
def test_environment_depends_on_the_requirements_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, lines: bytes
) -> None:
    (tmp_path / "more.txt").write_text("pillow\n")
    (tmp_path / "odd name.txt").write_text("flask<9\n")
    (tmp_path / "round.txt").write_text("-r round.txt\n-r requirements.txt\n")
    (tmp_path / "requirements.txt").write_bytes(text.encode(errors="surrogateescape"))
    read = local_module("requirement_files", monkeypatch).read_requirements
    assert read(tmp_path / "requirements.txt").wanted == lines


def test_files_that_requirements_name_are_found_from_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "fn"
    (folder / "wheels").mkdir(parents=True)
    (folder / "requirements.txt").write_text("-f wheels\n-r ../absent.txt\n")
    read = local_module("requirement_files", monkeypatch).read_requirements
    copy = read(folder / "requirements.txt").write(tmp_path / "copy")
    assert copy.read_text() == f"-f {folder / 'wheels'}\n-r {tmp_path / 'absent.txt'}\n"
    assert read(folder / "absent.txt").wanted == b""


class Small:
    """A base that is built without the network, and a function whose requirements are edited."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.base = folder / "base"
        self.base.mkdir()
        (self.base / "requirements.txt").write_text("# nothing is needed\n")
        (self.base / "pyproject.toml").write_text(IN_TREE)
        (self.base / "backend.py").write_text(BACKEND)
        self.requirements = folder / "requirements.txt"
        for name in ("one", "two"):
            write_wheel(folder / "wheels", name, "1.0")
        monkeypatch.setenv("PIP_FIND_LINKS", str(folder / "wheels"))
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        self._environments = local_module("environments", monkeypatch).Environments
        self.folder = folder / "environments"

    def up(self, report: Callable[[str], None] = lambda text: None) -> Any:
        """Return the environments as one ``up`` sees them."""
        return self._environments(self.folder, report)

    def interpreter(self, environments: Any, wanted: str) -> Path:
        """Return the interpreter for a function that wants *wanted* now."""
        self.requirements.write_text(wanted)
        return Path(environments.for_function("fn", self.base, self.requirements))


def installed(python: Path) -> list[str]:
    """Return which of the two packages an interpreter finds."""
    code = "import importlib.util as u; print(*(n for n in ('one', 'two') if u.find_spec(n)))"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.split()


def test_edit_during_an_installation_does_not_get_into_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = Small(tmp_path, monkeypatch)
    included = tmp_path / "more.txt"
    included.write_text("one\n")

    def edit(text: str) -> None:
        included.write_text("two\n")
        small.requirements.write_text("two\n")

    environments = small.up(edit)
    python = small.interpreter(environments, "-r more.txt\n")
    assert installed(python) == ["one"]
    # What the files hold by then is another environment.
    assert installed(small.interpreter(environments, "-r more.txt\n")) == ["two"]
    assert installed(python) == ["one"]
    environments.remove_unused()


def test_environment_that_no_function_uses_is_removed_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = Small(tmp_path, monkeypatch)
    first, second = small.up(), small.up()
    old = small.interpreter(first, "one\n")
    new = small.interpreter(second, "two\n")
    assert second.remove_unused() == 0, "the first up still runs on it"
    assert installed(old) == ["one"]
    (small.folder / "functions-half-made").mkdir()
    assert first.remove_unused() == 2
    assert [folder.name for folder in small.folder.glob("functions-*")] == [new.parent.parent.name]
    assert installed(new) == ["two"]

"""The README's commands, run as a newcomer runs them: in a fresh copy, or in an empty folder elsewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from tests.local_up import processes_below, wait_until
from tests.staging import BASE, ROOT, TEMPLATE

README = (ROOT / "README.md").read_text()
COMMANDS: list[str] = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
# Environments are installed from an index here, which takes its time.
INSTALL_SECONDS = 240.0

pytestmark = pytest.mark.timeout(400)


def _command(*words: str) -> str:
    """Return the README's block of commands in which all *words* stand."""
    return next(block for block in COMMANDS if all(word in block for word in words))


def _python(word: str) -> str:
    """Return the README's Python block in which *word* stands."""
    blocks: list[str] = re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return next(block for block in blocks if word in block)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the project as a fresh clone has it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    folder = tmp_path / "checkout"
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


@contextmanager
def _running(command: str, folder: Path) -> Iterator[Path]:
    """Run *command* until the addresses are shown, give its output's file, then press Ctrl-C."""
    log = folder / "output.log"
    with log.open("wb") as output:
        child = subprocess.Popen(
            ["bash", "-c", command], cwd=folder, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_until(lambda: "Ctrl-C stops" in log.read_text() or child.poll() is not None, "started", INSTALL_SECONDS)
        assert child.poll() is None, log.read_text()
        yield log
    finally:
        os.killpg(child.pid, signal.SIGINT)
        child.wait(30)
    assert processes_below(folder) == []


def _photo(path: Path) -> None:
    Image.effect_noise((1600, 1200), 60).convert("RGB").save(path, quality=90)


def test_make_up_and_the_curl_that_follows(checkout: Path, tmp_path: Path) -> None:
    """Two terminals: `make up`, then a photograph; the second call is cached and the result opens."""
    port = _free_port()
    curl = _command("curl", "image-processor").replace(":8080", f":{port}")
    _photo(tmp_path / "photo.jpg")
    with _running(_command("make up").strip() + f" PORT={port}", checkout) as log:
        assert "curl" in log.read_text()
        answers = []
        for _ in range(2):
            began = time.monotonic()
            done = subprocess.run(["bash", "-c", curl], cwd=tmp_path, capture_output=True, text=True, check=True)
            answers.append(json.loads(done.stdout))
            assert time.monotonic() - began < 1.0
        assert [answer["cached"] for answer in answers] == [False, True]
        assert answers[0]["format"] == "webp"
        opened = httpx2.get(answers[1]["processed_url"], timeout=5)
        assert (opened.status_code, len(opened.content)) == (200, answers[1]["bytes"])


def test_an_order_goes_through_three_functions(checkout: Path) -> None:
    """The README's second example, on nothing but this machine."""
    port = _free_port()
    curls = _command("order-intake").replace(":8080", f":{port}")
    with _running(_command("make up").strip() + f" PORT={port}", checkout) as log:
        order, stock = curls.split("curl -s")[1:]
        done = subprocess.run(["bash", "-c", f"curl -s {order}"], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["order_id"]
        wait_until(lambda: "order.fulfilled" in log.read_text(), "notified")
        done = subprocess.run(["bash", "-c", f"curl -s {stock}"], capture_output=True, text=True, check=True)
        assert done.stdout == "98"


@pytest.mark.tool("faas-cli")
def test_a_function_of_ones_own(tmp_path: Path) -> None:
    """In an empty folder: pull, new, up, curl; then the README's unit test of the handler."""
    commands = _command("template pull").replace("$TEMPLATE_REPOSITORY", str(ROOT))
    port = _free_port()
    project = tmp_path / "mine"
    project.mkdir()
    with _running(f"set -e; {commands.strip()} --port {port}", project):
        done = subprocess.run(
            ["bash", "-c", _command("function/shrink").replace(":8080", f":{port}")],
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout) == {"message": "Hello, Ada!"}
    (project / "shrink" / "handler_test.py").write_text(_python("handler_test.py"))
    environ = {**os.environ, "PYTHONPATH": str(project / "template/python-fastapi/base")}
    subprocess.run([sys.executable, "-m", "pytest", "-q", "shrink"], cwd=project, env=environ, check=True)


@pytest.mark.tool("faas-cli")
def test_template_is_pinned_by_a_git_ref_and_staged_for_a_build(tmp_path: Path) -> None:
    """A ref makes a folder of its own name, and `build --shrinkwrap` stages all that the Dockerfile copies."""
    address = "https://templates.example/python-fastapi.git"
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True)
    ref = f"sha-{head.stdout.strip()}"
    # faas-cli pins no local path, so git is told where that address is.
    environ = {
        **os.environ,
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{ROOT}.insteadOf",
        "GIT_CONFIG_VALUE_0": address,
    }
    for command in (
        ["faas-cli", "template", "pull", f"{address}#{ref}"],
        ["faas-cli", "new", "--lang", f"python-fastapi@{ref}", "pinned"],
        ["faas-cli", "build", "--shrinkwrap", "-f", "stack.yaml"],
    ):
        subprocess.run(command, cwd=tmp_path, env=environ, check=True, capture_output=True, timeout=60)
    assert (tmp_path / "template" / f"python-fastapi@{ref}" / "local" / "__main__.py").exists()
    staged = tmp_path / "build" / "pinned"
    copied = re.findall(r"^COPY (?!--from)(\S+)", (staged / "Dockerfile").read_text(), re.MULTILINE)
    assert copied
    assert [name for name in copied if not list(staged.glob(name))] == []


def test_python_of_the_readme_imports_what_exists() -> None:
    """Every name that a snippet takes from faasbase is public, here and in the template's README."""
    both = README + (TEMPLATE / "README.md").read_text()
    blocks: list[str] = re.findall(r"^```python\n(.*?)^```", both, re.MULTILINE | re.DOTALL)
    imports = [line for block in blocks for line in block.splitlines() if line.startswith("from faasbase")]
    assert len(imports) >= 3
    environ = {**os.environ, "PYTHONPATH": str(BASE)}
    subprocess.run([sys.executable, "-c", "\n".join(imports)], env=environ, check=True)


def test_settings_of_the_readme_are_those_of_the_code() -> None:
    """Each setting in the table is one that is read."""
    source = "".join(path.read_text() for path in (BASE / "faasbase").rglob("*.py"))
    text = (TEMPLATE / "README.md").read_text()
    table = text.split("## Settings")[1].split("## The cache")[0] + text.split("## Events")[1]
    first_cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    names = [name for cell in first_cells for name in re.findall(r"`(\w+)`", cell)]
    assert len(names) >= 15
    assert [name for name in names if f'"{name}"' not in source] == []

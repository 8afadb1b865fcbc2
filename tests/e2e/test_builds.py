"""Functions of all kinds are built as they come from a developer's machine, and run as a pod runs them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from deploy.images.building import Builder, Built
from deploy.images.engine import Engine, EngineError
from deploy.images.project import TEMPLATE
from deploy.images.staging import stage
from tests.e2e.building import built, built_of, run_in
from tests.e2e.conftest import write
from tests.e2e.containers import run_container
from tests.e2e.index import wheel
from tests.staging import BASE

SESSION = uuid.uuid4().hex
ODD_NAME = "größe und maß.txt"
APP = f'''\
# {SESSION}
import subprocess
from pathlib import Path

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from .deep.deeper.module import depth
from .plain.module import kind

HERE = Path(__file__).parent
app = FastAPI()
app.mount("/static", StaticFiles(directory=HERE / "static"))


@app.get("/")
def look() -> dict[str, object]:
    ran = subprocess.run([HERE / "tool.sh"], capture_output=True, text=True, check=True, timeout=10)
    text = (HERE / "{ODD_NAME}").read_text(encoding="utf-8")
    return {{"depth": depth(), "kind": kind(), "text": text, "ran": ran.stdout}}
'''
FILES = {
    "handler.py": APP,
    "static/index.html": "<h1>Shop</h1>",
    ODD_NAME: "naïve café",
    "deep/__init__.py": "",
    "deep/deeper/__init__.py": "",
    "deep/deeper/module.py": "def depth() -> int:\n    return 2\n",
    "plain/module.py": 'def kind() -> str:\n    return "without an __init__.py"\n',
}


TESTED = """\
from faasbase.testing import client
from . import handler

def test_answers() -> None:
    with client(handler) as function:
        assert function.post("/").status_code == 200
"""


@pytest.fixture
def private_folder(tmp_path: Path) -> Path:
    """Return a handler's folder without requirements.txt, for its owner alone, as ``faas-cli new`` makes it."""
    for name, text in FILES.items():
        path = tmp_path / "shop" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    tool = tmp_path / "shop" / "tool.sh"
    tool.write_text("#!/bin/sh\necho ran\n")
    for path in [tmp_path / "shop", *(tmp_path / "shop").rglob("*")]:
        path.chmod(0o700 if path.is_dir() or path == tool else 0o600)
    return tmp_path / "shop"


def test_files_beside_the_handler_are_served_and_read(
    engine: Engine, builder: Builder, base_image: str, private_folder: Path
) -> None:
    """Static files, nested packages, names of any kind and modes of the developer's machine reach the function."""
    with (
        built(builder, base_image, private_folder) as function,
        run_container(engine, function.image) as container,
    ):
        container.wait_healthy()
        assert httpx2.get(f"{container.url}/static/index.html").text == "<h1>Shop</h1>"
        assert httpx2.get(container.url).json() == {
            "depth": 2,
            "kind": "without an __init__.py",
            "text": "naïve café",
            "ran": "ran\n",
        }
        assert "faasbase[otel]" in container.exec("cat", "function/requirements.txt")
        assert "the function has no tests" in function.log


def test_checkout_that_its_owner_alone_can_read_is_built(builder: Builder, tmp_path: Path) -> None:
    """With umask 077 nobody else may read any file of the template; functions and their tests run as other users."""
    handler = write(
        {"handler.py": f"# {SESSION}\nasync def handle() -> None: ...\n", "handler_test.py": TESTED}, tmp_path / "fn"
    )
    context = stage(TEMPLATE, handler, tmp_path / "context")
    for path in (context, *context.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    with built_of(builder, "base", context) as function:
        assert "1 passed" in function.log
        closed = ["-type", "d", "!", "-perm", "-0005", "-o", "!", "-type", "d", "!", "-perm", "-0004"]
        assert run_in(builder, function.image, "find", "/opt/faasbase", *closed) == ""


OTHER_RELEASE = """\
from importlib.metadata import version

import pydantic


class Order(pydantic.BaseModel):
    number: int


async def handle(order: Order) -> dict[str, str | int]:
    return {"number": order.number, "pydantic": version("pydantic"), "from": pydantic.__file__}
"""


def locked(name: str) -> str:
    """Return the version of *name* that the base has."""
    found = re.search(rf"^{name}==(\S+)", (BASE / "requirements.txt").read_text(), re.MULTILINE)
    assert found
    return found[1]


@pytest.fixture(scope="module")
def other_release(builder: Builder, base_image: str) -> Iterator[Built]:
    """Return a function that names no ``faasbase``, and other releases of what the base has than the base."""
    requirements = f"# {SESSION}\npydantic<{locked('pydantic')}\nprotobuf<6\n"
    with built(builder, base_image, {"handler.py": OTHER_RELEASE, "requirements.txt": requirements}) as function:
        yield function


def test_release_that_a_function_asks_for_wins_over_the_bases(engine: Engine, other_release: Built) -> None:
    """It is the function's own, with what belongs to it, and the typed handler runs on it."""
    with run_container(engine, other_release.image) as container:
        container.wait_healthy()
        answer = httpx2.post(container.url, json={"number": 7}).json()
    assert answer["number"] == 7
    assert answer["pydantic"] != locked("pydantic")
    assert answer["from"].startswith("/opt/function/")


def test_base_keeps_its_own_release(builder: Builder, other_release: Built) -> None:
    """The layers of the base are shared: no function changes them."""
    ask = "import importlib.metadata, pydantic; print(importlib.metadata.version('pydantic'), pydantic.__file__)"
    version, place = run_in(builder, other_release.image, "/opt/venv/bin/python", "-c", ask).split()
    assert version == locked("pydantic")
    assert place.startswith("/opt/venv/")


def test_release_that_a_part_of_the_base_cannot_use_is_told(other_release: Built) -> None:
    """A function without traces may have another protobuf than they need; its build says what no longer fits."""
    assert re.search(r"requires protobuf\S*, but you have protobuf 5\.\S+ which is incompatible", other_release.log)


def test_release_that_the_base_cannot_run_on_fails_the_build(builder: Builder, base_image: str) -> None:
    """The log names the two that do not fit."""
    source = {"handler.py": OTHER_RELEASE, "requirements.txt": "starlette==0.40.0\n"}
    with pytest.raises(EngineError) as refused, built(builder, base_image, source):
        pass
    assert "The user requested starlette==0.40.0" in str(refused.value)
    assert "fastapi" in str(refused.value).partition("The conflict is caused by:")[2]


def test_empty_requirements_are_enough(engine: Engine, builder: Builder, base_image: str) -> None:
    """A function that asks for nothing has the base."""
    source = {"handler.py": "async def handle(name: str) -> str:\n    return name\n", "requirements.txt": ""}
    with (
        built(builder, base_image, source) as function,
        run_container(engine, function.image) as container,
    ):
        container.wait_healthy()
        assert httpx2.get(container.url, params={"name": "Ada"}).json() == "Ada"


def test_requirements_name_files_of_the_functions_folder(
    engine: Engine, builder: Builder, base_image: str, tmp_path: Path
) -> None:
    """Others, constraints, and private wheels without any index: as the embedded OpenFaaS installs them."""
    first, second = (wheel(f"{name}-{SESSION}", "1.0", {f"{name}.py": "RATE = 1.19\n"}) for name in ("net", "gross"))
    lines = [
        "-c constraints.txt",
        "-r requirements-more.txt",
        "--find-links wheels",
        first.name,
        f"./wheels/{second.file_name}",
    ]
    files = {
        "handler.py": "import gross, net\n\n\nasync def handle() -> float:\n    return gross.RATE - net.RATE\n",
        "requirements.txt": "\n".join(lines),
        "constraints.txt": "tabulate<0.9\n",
        "requirements-more.txt": "tabulate\n",
    }
    write(files, tmp_path)
    (tmp_path / "wheels").mkdir()
    for one in (first, second):
        (tmp_path / "wheels" / one.file_name).write_bytes(one.content)
    with built(builder, base_image, tmp_path) as function, run_container(engine, function.image) as container:
        container.wait_healthy()
        assert httpx2.get(container.url).json() == 0
        version = container.exec("python", "-c", "import importlib.metadata as found; print(found.version('tabulate'))")
        assert version.startswith("0.8.")

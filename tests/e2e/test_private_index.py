"""
Functions with a private package: from an index that asks for a password, which stays out of the image.

The index also has a package named ``faasbase``, with a higher version than any of ours: nobody ever gets that one.
"""

from __future__ import annotations

import configparser
import json
import mmap
import secrets
import shutil
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx2
import pytest
import yaml

import faasbase
from deploy.images.building import Builder, Built, pip_configuration
from deploy.images.engine import Engine, EngineError, docker_shim, run_build
from deploy.images.project import TEMPLATE
from tests.e2e.building import HOST_NETWORK, built
from tests.e2e.conftest import image_name, write
from tests.e2e.containers import run_container
from tests.e2e.index import Index, package_index, wheel

SESSION = uuid.uuid4().hex
SAVE_SECONDS = 120.0
# A name that nobody can have taken in a public index.
PRIVATE = f"pricing-{SESSION}"
PACKAGES = (
    # Packages bring files that are Python for others, and templates of it.
    wheel(
        PRIVATE,
        "1.0",
        {"pricing/__init__.py": "RATE = 1.19\n", "pricing/template.py": "class {{ name }}: pass\n"},
        requires=["faasbase"],
    ),
    wheel("faasbase", "99.0", {"faasbase/__init__.py": "STRANGER = True\n", "faasbase/server.py": "STRANGER = True\n"}),
)
HANDLER = f"""\
from importlib.metadata import version

import pricing
import faasbase


async def handle() -> dict[str, object]:
    found = {{"rate": pricing.RATE, "version": version("faasbase"), "session": "{SESSION}"}}
    return found | {{"stranger": hasattr(faasbase, "STRANGER"), "file": faasbase.__file__}}
"""


@pytest.fixture
def index() -> Iterator[Index]:
    """Return an index that asks for a password which nobody has seen before."""
    with package_index(*PACKAGES, password=secrets.token_hex(16)) as index:
        yield index


def pipconf(path: Path, setting: str, value: str) -> Path:
    """Write to *path* what pip is configured with on this machine, and *value* in addition."""
    settings = configparser.RawConfigParser()
    settings.read(pip_configuration() or ())
    if not settings.has_section("global"):
        settings.add_section("global")
    others = settings.get("global", setting, fallback="")
    settings.set("global", setting, f"{others}\n{value}".strip())
    with path.open("w") as file:
        settings.write(file)
    return path


def netrc(index: Index, path: Path) -> Path:
    """Write to *path* the password of *index*."""
    path.write_text(index.netrc)
    return path


def assert_works_with_our_base(engine: Engine, function: Built) -> None:
    """Assert that *function* serves with its private package, and with the `faasbase` of the template."""
    with run_container(engine, function.image) as container:
        container.wait_healthy()
        answer = httpx2.get(container.url).json()
    expected = {"rate": 1.19, "version": faasbase.__version__, "session": SESSION, "stranger": False}
    assert answer == expected | {"file": answer["file"]}
    assert answer["file"].startswith("/opt/venv/")


def assert_kept_out(engine: Engine, function: Built, password: str, folder: Path) -> None:
    """Assert that *password* is in no layer, configuration or history of the image, and was not said in the log."""
    assert password not in function.log
    assert password not in json.dumps(engine.inspect(function.image))
    archive = folder / "image.tar"
    engine.run("save", "--output", str(archive), function.image, timeout_seconds=SAVE_SECONDS)
    with archive.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        assert content.find(b"RATE = 1.19") > 0
        assert content.find(password.encode()) == -1


def test_password_comes_with_pips_configuration(
    engine: Engine, builder: Builder, base_image: str, index: Index, tmp_path: Path
) -> None:
    """The secret ``pipconf`` is there while packages are installed, and at no other time."""
    source = {"handler.py": HANDLER, "requirements.txt": f"{PRIVATE}\nfaasbase[otel]\n"}
    configuration = pipconf(tmp_path / "pip.conf", "extra-index-url", index.url_with_password)
    secret = f"--secret=id=pipconf,src={configuration}"
    with built(builder, base_image, source, secret, HOST_NETWORK) as function:
        assert_works_with_our_base(engine, function)
        assert_kept_out(engine, function, index.password, tmp_path)
    assert index.has_told_of(PRIVATE)
    assert not index.was_asked_for("faasbase")


def test_password_comes_with_netrc(
    engine: Engine, builder: Builder, base_image: str, index: Index, tmp_path: Path
) -> None:
    """The secret ``netrc`` opens the index that the requirements name; hashes may be locked there, but of ours none."""
    requirements = f"--extra-index-url {index.url}\n{PACKAGES[0].locked}\nfaasbase[otel]\n"
    source = {"handler.py": HANDLER, "requirements.txt": requirements}
    secret = f"--secret=id=netrc,src={netrc(index, tmp_path / 'netrc')}"
    with built(builder, base_image, source, secret, HOST_NETWORK) as function:
        assert_works_with_our_base(engine, function)
        assert_kept_out(engine, function, index.password, tmp_path)
    assert index.has_told_of(PRIVATE)
    assert not index.was_asked_for("faasbase")


@pytest.mark.tool("faas-cli")
def test_secrets_come_by_faas_cli(engine: Engine, bases: Mapping[str, str], base_image: str, tmp_path: Path) -> None:
    """``build_secrets`` of a stack file names the files, as a user of OpenFaaS does it."""
    place = f"/nowhere-{SESSION}"
    (tmp_path / "fn").mkdir()
    write({"handler.py": "async def handle() -> None: ...\n", "requirements.txt": f"# {SESSION}\n"}, tmp_path / "fn")
    image = image_name("by-faas-cli")
    function = {
        "lang": TEMPLATE.name,
        "handler": "./fn",
        "image": image,
        "build_args": {**bases, "BASE_IMAGE": base_image, "SHAPE": "direct"},
        "build_secrets": {"pipconf": str(pipconf(tmp_path / "pip.conf", "find-links", place))},
    }
    stack = {"version": "1.0", "provider": {"name": "openfaas"}, "functions": {"fn": function}}
    (tmp_path / "stack.yaml").write_text(yaml.safe_dump(stack))
    shutil.copytree(TEMPLATE, tmp_path / "template" / TEMPLATE.name)
    try:
        log = run_build(image, ["faas-cli", "build"], docker_shim(engine, tmp_path), tmp_path)
        assert f"Looking in links: {place}" in log
    finally:
        engine.remove_image(image)


def test_without_the_password_there_is_no_image(builder: Builder, base_image: str, index: Index) -> None:
    """Nobody is asked for it, and the log names what is missing."""
    requirements = f"--extra-index-url {index.url}\n{PRIVATE}==1.0\n"
    source = {"handler.py": HANDLER, "requirements.txt": requirements}
    with pytest.raises(EngineError) as refused, built(builder, base_image, source, HOST_NETWORK):
        pass
    assert f"No matching distribution found for {PRIVATE}==1.0" in str(refused.value)
    assert (f"/simple/{PRIVATE}/", False) in index.asked


def test_version_of_the_base_that_only_a_stranger_has_is_a_conflict(
    builder: Builder, base_image: str, index: Index, tmp_path: Path
) -> None:
    """Asking for ``faasbase>=1`` takes nothing from the index: the build fails and says why."""
    source = {"handler.py": HANDLER, "requirements.txt": f"{PRIVATE}\nfaasbase>=1\n"}
    configuration = pipconf(tmp_path / "pip.conf", "extra-index-url", index.url_with_password)
    secret = f"--secret=id=pipconf,src={configuration}"
    with pytest.raises(EngineError) as refused, built(builder, base_image, source, secret, HOST_NETWORK):
        pass
    said = str(refused.value)
    assert "The user requested faasbase>=1\n" in said
    assert f"The user requested faasbase {faasbase.__version__} (from /opt/faasbase/" in said
    assert not index.was_asked_for("faasbase")

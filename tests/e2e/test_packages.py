"""Debian packages: a function is built with compilers and headers, and ships libraries and programs that it runs."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from deploy.images.building import Builder, Built
from deploy.images.engine import Engine, EngineError
from tests.e2e.building import built, run_in
from tests.e2e.conftest import Build, image_name
from tests.e2e.containers import run_container
from tests.staging import TEMPLATE

SESSION = uuid.uuid4().hex
COMPILED = """\
import subprocess

import magic
import psycopg2.extensions
from fastapi import APIRouter

router = APIRouter()


@router.get("/libpq")
def libpq() -> int:
    return psycopg2.extensions.libpq_version()


@router.get("/type")
def type_of() -> str:
    return magic.from_buffer(b"%PDF-1.7", mime=True)


@router.get("/jq")
def jq() -> str:
    return subprocess.run(["jq", "-n", "6*7"], capture_output=True, text=True, check=True, timeout=10).stdout.strip()
"""
COMPILED_REQUIREMENTS = "faasbase\npsycopg2==2.9.10\npython-magic\n"
UPGRADED = "async def handle() -> None: ...\n"
OUTDATED = "0.1"
NAMED = """\
import magic


def handle() -> str:
    return magic.from_buffer(b"%PDF-1.7", mime=True)
"""


def packages_of(builder: Builder, image: str) -> set[str]:
    """Return the Debian packages that are installed in *image*."""
    return set(run_in(builder, image, "dpkg-query", "-W", "-f", "${Package}\n").split())


@pytest.fixture
def outdated_base(builder: Builder, base_image: str, tmp_path: Path) -> Iterator[str]:
    """Return a base image in which one of Debian's packages claims to be an old one."""
    change = f"/^Package: hostname$/,/^$/ s/^Version: .*/Version: {OUTDATED}/"
    lines = [f"FROM {base_image}", f"RUN sed -i '{change}' /var/lib/dpkg/status"]
    (tmp_path / "Dockerfile").write_text("\n".join(lines))
    image = image_name("outdated")
    builder.engine.build(tmp_path, image, [])
    yield image
    builder.engine.remove_image(image)


@pytest.fixture(scope="module")
def compiled(builder: Builder, base_image: str) -> Iterator[Built]:
    """Return a function with a module in C, a library that is loaded by name, and a program."""
    source = {"handler.py": COMPILED, "requirements.txt": COMPILED_REQUIREMENTS}
    options = ("dev", "libpq")
    with built(builder, base_image, source, build_options=options, ADDITIONAL_PACKAGE="jq libmagic-dev") as function:
        yield function


def test_what_was_compiled_and_what_it_loads_runs(engine: Engine, compiled: Built) -> None:
    """psycopg2 is built from its sources, libmagic is found by its name and jq on the PATH, as a pod has them."""
    with run_container(engine, compiled.image) as container:
        container.wait_healthy()
        assert httpx2.get(f"{container.url}/libpq").json() >= 150000
        assert httpx2.get(f"{container.url}/type").json() == "application/pdf"
        assert httpx2.get(f"{container.url}/jq").json() == "42"


def test_what_only_builds_is_not_shipped(builder: Builder, compiled: Built, base_image: str) -> None:
    """Of all that was installed for the build, the libraries and the program are in the image, and what they need."""
    added = packages_of(builder, compiled.image) - packages_of(builder, base_image)
    assert {"jq", "libpq5"} <= added
    assert any(name.startswith("libmagic1") for name in added)
    assert not [name for name in added if name.endswith("-dev")]
    assert not added & {"gcc", "g++", "make", "git", "binutils", "cpp", "pkgconf", "pkg-config", "perl", "python3-dev"}
    assert not [name for name in added if name.startswith(("gcc-", "libgcc-", "libcurl", "libpython", "libasan"))]


@pytest.fixture
def named(build: Build) -> str:
    """Return a function that loads a library by its name, with a tool that Debian counts among the compilers."""
    source = {"handler.py": NAMED, "requirements.txt": "faasbase\npython-magic\n"}
    return build(source, "named", ADDITIONAL_PACKAGE="libmagic1", RUNTIME_PACKAGE="make")


def test_package_of_a_library_is_enough_to_load_it(engine: Engine, named: str) -> None:
    """ADDITIONAL_PACKAGE without compilers: what it names is there at run time, by Debian's former name."""
    with run_container(engine, named) as container:
        container.wait_healthy()
        assert httpx2.get(container.url).json() == "application/pdf"


def test_runtime_package_is_shipped_whatever_it_is(builder: Builder, named: str) -> None:
    """A function that runs what others only build with names it in RUNTIME_PACKAGE."""
    assert "make" in packages_of(builder, named)


def test_pending_upgrades_are_installed(builder: Builder, outdated_base: str) -> None:
    """UPGRADE_PACKAGES=true brings the image's own packages up to date."""
    with built(builder, outdated_base, UPGRADED, UPGRADE_PACKAGES="true") as function:
        found = run_in(builder, function.image, "dpkg-query", "-W", "-f", "${Version}", "hostname")
    assert found != OUTDATED


def test_unknown_package_fails_with_the_words_of_apt(builder: Builder, base_image: str) -> None:
    """The last thing that is said is what apt-get says, and no traceback of ours."""
    with (
        pytest.raises(EngineError) as refused,
        built(builder, base_image, f"# {SESSION}\n{NAMED}", ADDITIONAL_PACKAGE="no-such-package"),
    ):
        pass
    assert "E: Unable to locate package no-such-package" in str(refused.value)
    assert "Traceback" not in str(refused.value)


def test_without_packages_apt_leaves_nothing(builder: Builder, base_image: str, build: Build) -> None:
    """Of a function that needs no package nothing is written beside its code and what it requires."""
    image = build(TEMPLATE / "function", "hello")
    assert written(builder, image) - written(builder, base_image) == set()


def written(builder: Builder, image: str) -> set[str]:
    """Return the files that were written since the base was installed."""
    newer = ["-xdev", "-type", "f", "-newer", "/opt/faasbase/pin.txt"]
    return set(run_in(builder, image, "find", "/usr", "/var", "/opt", "/home", *newer).splitlines())

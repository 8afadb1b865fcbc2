"""What is in an image, in every layer of it, and what is not."""

from __future__ import annotations

import contextlib
import json
import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from importlib.util import source_from_cache
from pathlib import Path, PurePosixPath

import pytest

from deploy.images.building import Builder, pip_configuration
from deploy.images.engine import Engine
from deploy.images.project import ROOT, TEMPLATE
from deploy.images.staging import stage
from tests.e2e.building import built_of
from tests.e2e.conftest import Build
from tests.e2e.layers import Inspection, inspected

Inspect = Callable[[str], Inspection]

DEV = "build-essential git libffi-dev pkg-config python3-dev"
"""The template's build option ``dev``."""
IMAGES: Mapping[str, Callable[[Build], str]] = {
    "hello": lambda build: build(TEMPLATE / "function", "hello"),
    "image-processor": lambda build: build(ROOT / "functions" / "image-processor", "image-processor"),
    "with packages that run": lambda build: build(
        TEMPLATE / "function", "packages", ADDITIONAL_PACKAGE=f"{DEV} libmagic1 sudo"
    ),
    "with packages that build": lambda build: build(
        TEMPLATE / "function", "builds", ADDITIONAL_PACKAGE="gcc libpq-dev"
    ),
}
CODE = "home/app/"
ENVIRONMENTS = ("opt/function/", "opt/venv/")
# Without tests, graphical parts and the installer: no function imports them.
STANDARD_LIBRARY = re.compile(
    r"usr/(local/)?lib/python3\.\d+/(?!test/|idlelib/|tkinter/|turtledemo/|ensurepip/|lib2to3/|\w+-packages/).*\.py"
)
COMPILERS = re.compile(
    r"(\w+-linux-gnu-)?(cc|c\+\+|cpp|gcc|g\+\+|as|ld|ar|make|cmake|git|pkg-config|pkgconf|rustc|go)(-[\d.]+)?"
)
BUILD_PACKAGES = re.compile(r".*-dev|binutils.*|build-essential|git(-man)?|make|dpkg-dev|(gcc|g\+\+|cpp)(-\d+)?")
TEST_TOOLS = re.compile(r".*-packages/(_?pytest|pluggy|iniconfig|hypothesis|httpx2?)\b.*|opt/testing\b.*")
LEFTOVERS = re.compile(
    r"(root|tmp|var/tmp|var/log|var/cache/apt|var/lib/apt/lists)/.*|.*/(\.cache|pip/cache|\.secrets|\.git|\.env|\.netrc)(/.*)?"
)
# The engine puts these into a container: they are not the image's.
ENGINES_OWN = ("dev", "proc", "sys", "run/secrets")


@pytest.fixture(scope="module")
def inspect(engine: Engine, bases: Mapping[str, str]) -> Iterator[Inspect]:
    """Return a function that opens images, each once."""
    opened: dict[str, Inspection] = {}
    with contextlib.ExitStack() as stack:

        def inspect(image: str) -> Inspection:
            if image not in opened:
                opened[image] = stack.enter_context(inspected(engine, image, bases["PYTHON_IMAGE"]))
            return opened[image]

        yield inspect


@pytest.fixture(params=IMAGES)
def image(request: pytest.FixtureRequest, build: Build, inspect: Inspect) -> Inspection:
    """Return one image of each kind, opened up."""
    return inspect(IMAGES[request.param](build))


def test_no_program_changes_the_user(image: Inspection) -> None:
    files = [path for path, entry in image.root.items() if entry.isfile() and entry.mode & 0o6000]
    layered = [path for path, entry in image.layered if entry.isfile() and entry.mode & 0o6000]
    assert (files, layered) == ([], [])


def test_everyone_can_write_to_tmp_alone(image: Inspection) -> None:
    open_to_all = {path for path, entry in image.root.items() if not entry.issym() and entry.mode & 0o002}
    assert {path for path in open_to_all if not path.startswith(ENGINES_OWN)} == {"tmp"}
    assert image.root["tmp"].mode & 0o7777 == 0o1777


def test_code_is_roots_and_everyone_can_read_it(image: Inspection) -> None:
    """The cluster chooses the user, and no user changes what it runs."""
    entries = dict(image.under(CODE, *ENVIRONMENTS))
    assert len(entries) > 1000
    for path, entry in entries.items():
        assert (entry.uid, entry.gid) == (0, 0), path
        if not entry.issym():
            needed = 0o555 if entry.isdir() else 0o444
            assert entry.mode & needed == needed, path
            assert not entry.mode & 0o022, path


def test_any_user_can_import_the_function(engine: Engine, build: Build) -> None:
    image = IMAGES["image-processor"](build)
    command = ["python", "-c", "import os, function.handler; print(os.getuid())"]
    assert engine.run("run", "--rm", "--user", "54321:54321", image, *command).strip() == "54321"


def test_every_bytecode_file_is_valid_whatever_the_time_of_its_source(image: Inspection) -> None:
    """Layers are unpacked with other times than they were made with, and nobody may write better bytecode."""
    layered = [path for path, entry in image.layered if path.endswith(".pyc") and entry.isfile()]
    assert len(layered) > 1000
    assert [path for path in layered if path in image.root and not image.needs_no_source(path)] == []


def test_every_module_of_function_base_and_standard_library_has_bytecode(image: Inspection) -> None:
    compiled = {source_from_cache(path) for path, _ in image.layered if path.endswith(".pyc") and path in image.root}
    # A program in bin/ may be called so too; it is run, and never imported.
    modules = [path for path, _ in image.under(CODE, *ENVIRONMENTS) if path.endswith(".py") and "/bin/" not in path]
    modules += [path for path in image.root if STANDARD_LIBRARY.fullmatch(path)]
    assert len(modules) > 1000
    assert set(modules) - compiled == set()


def test_nothing_is_left_of_building(image: Inspection) -> None:
    """No cache, list, log or temporary file, nor what belongs to a developer's machine, not even in a hidden layer."""
    assert [path for path, entry in image.layered if not entry.isdir() and LEFTOVERS.fullmatch(path)] == []
    assert [path for path, entry in image.under("var/lib/apt/lists/") if not entry.isdir()] == []


def test_no_compiler_is_shipped(image: Inspection) -> None:
    assert {package for package in image.packages() if BUILD_PACKAGES.fullmatch(package)} == set()
    paths = {*image.root, *(path for path, _ in image.layered)}
    programs = {path for path in paths if re.fullmatch(r"(usr/)?(local/)?s?bin/.*", path)}
    assert [path for path in programs if COMPILERS.fullmatch(PurePosixPath(path).name)] == []


def test_no_tool_of_tests_is_shipped(image: Inspection) -> None:
    assert [path for path, _ in image.layered if TEST_TOOLS.fullmatch(path)] == []


def test_the_function_is_the_launcher_and_the_handler_alone(image: Inspection) -> None:
    """What runs functions on a developer's machine stays there."""
    top = {path.split("/")[2] for path, _ in image.under(CODE) if path.count("/") > 1}
    assert top == {"__pycache__", "function", "index.py"}
    assert [path for path, _ in image.layered if re.match(r"(home|opt/faasbase)/(.*/)?local/", path)] == []


def test_packages_that_run_are_shipped(build: Build, inspect: Inspect) -> None:
    """A library and a program that were asked for, and the library behind headers that were."""
    image = inspect(IMAGES["with packages that run"](build))
    assert {"libmagic1t64", "sudo"} <= image.packages()
    assert image.root["usr/bin/sudo"].mode & 0o7777 == 0o755
    assert "libpq5" in inspect(IMAGES["with packages that build"](build)).packages()


def test_secrets_are_in_no_layer_and_in_no_history(build: Build, inspect: Inspect, tmp_path: Path) -> None:
    """Neither those of the developer's folder, nor those that the build was given to fetch packages with."""
    canary, shown = f"canary-{uuid.uuid4().hex}", f"shown-{uuid.uuid4().hex}"
    hidden = (".secrets/token", "nested/.secrets/token", ".env", "nested/.env", ".netrc", ".git/config", ".venv/x.py")
    files = {
        "handler.py": f"def handle() -> str:\n    return {shown!r}\n",
        # Packages are installed anew, with the build's secrets, wherever this line was not seen before.
        "requirements.txt": f"faasbase\n# {shown}\n",
        **dict.fromkeys(hidden, f"{canary}\n"),
    }
    options = ["--secret", f"id=pipconf,src={_pip_configuration(tmp_path, canary)}"]
    options += ["--secret", f"id=netrc,src={_netrc(tmp_path, canary)}"]
    image = inspect(build(files, "secretive", options=options))
    assert image.tells(shown)
    assert not image.tells(canary)
    assert [path for path, _ in image.layered if PurePosixPath(path).name in ("pip.conf", ".netrc")] == []


def test_the_image_says_what_it_is_and_how_it_runs(build: Build, inspect: Inspect) -> None:
    given = {"IMAGE_SOURCE": "https://example.com/source", "IMAGE_REVISION": "0123abc", "IMAGE_VERSION": "1.2.3"}
    config = inspect(build(TEMPLATE / "function", "labelled", **given)).config
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    assert labels["title"]
    assert labels["description"]
    assert {labels[name] for name in ("source", "revision", "version")} == set(given.values())
    assert config["User"] == "12000:12000"
    assert set(config["ExposedPorts"]) == {"8080/tcp", "8081/tcp"}
    assert config["Healthcheck"]["Test"] == ["CMD", "python", "-m", "faasbase.healthcheck"]


def test_the_origin_of_the_template_is_shipped_without_credentials(
    builder: Builder, base_image: str, inspect: Inspect, tmp_path: Path
) -> None:
    """faas-cli writes it beside the Dockerfile, anew with each pull, with the address as it was given."""
    password, revision = f"password-{uuid.uuid4().hex}", f"sha-{uuid.uuid4().hex}"
    context = stage(TEMPLATE, TEMPLATE / "function", tmp_path / "context")
    layers = []
    for day in (1, 2):
        origin = {
            "repository": f"https://u:{password}@host/x",
            "sha": revision,
            "written_at": f"2026-11-0{day}T00:00:00Z",
        }
        (context / "meta.json").write_text(json.dumps(origin))
        with built_of(builder, base_image, context) as function:
            image = inspect(function.image)
            assert json.loads(image.read("home/app/meta.json")) == {"repository": "https://host/x", "sha": revision}
            assert image.tells(revision)
            assert not image.tells(password)
            layers.append(image.layers_with("home/app"))
    assert layers[0] == layers[1]
    assert len(layers[0]) == 1


def _pip_configuration(folder: Path, comment: str) -> Path:
    """Return a file with pip's settings on this machine, which a build may not do without, and a *comment*."""
    settings = machine.read_text() if (machine := pip_configuration()) else "[global]\n"
    (target := folder / "pip.conf").write_text(f"# {comment}\n{settings}")
    return target


def _netrc(folder: Path, password: str) -> Path:
    (target := folder / "netrc").write_text(f"machine index.invalid login builder password {password}\n")
    return target

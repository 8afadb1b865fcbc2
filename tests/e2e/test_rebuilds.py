"""Building a function again: only what changed is made anew, on the shared base image and without it."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Protocol

import httpx2
import pytest

from deploy.images.building import Builder, Built
from deploy.images.engine import Engine
from tests.e2e.building import built, layers, run_in
from tests.e2e.containers import run_container

SESSION = uuid.uuid4().hex
# It takes two seconds on a machine that does nothing else.
REBUILD_SECONDS = 60.0
# Dependencies that no other session has installed, so that this one's are not taken from the cache.
REQUIREMENTS = f"# {SESSION}\niniconfig\n"
SITE_PACKAGES = """\
from importlib.metadata import distributions
for found in sorted(distributions(), key=lambda found: found.name):
    print(found.name, found.version, found.locate_file(""))
"""


def source(message: str, requirements: str = REQUIREMENTS) -> dict[str, str]:
    """Return a function that answers *message*."""
    handler = f'async def handle() -> str:\n    return "{message} {SESSION}"\n'
    return {"handler.py": handler, "requirements.txt": requirements}


@pytest.fixture(scope="module")
def first(builder: Builder, base_image: str) -> Iterator[Built]:
    """Return the function as it is built first."""
    with built(builder, base_image, source("first")) as function:
        yield function


class Told(Protocol):
    """Say how long a build took."""

    def __call__(self, what: str, function: Built) -> None: ...


@pytest.fixture
def told(record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]) -> Told:
    """Return what writes seconds into the report and, at once, on the terminal."""

    def told(what: str, function: Built) -> None:
        record_property(what, function.seconds)
        with capsys.disabled():
            sys.stdout.write(f"\n{what}: {function.seconds:.1f} s\n")

    return told


def test_function_stands_on_the_layers_of_the_base(builder: Builder, base_image: str, first: Built) -> None:
    """A node that has one function has nearly all of the next."""
    base = layers(builder, base_image)
    assert layers(builder, first.image)[: len(base)] == base


def test_change_of_code_changes_the_last_layer(
    engine: Engine, builder: Builder, base_image: str, first: Built, told: Told
) -> None:
    """Everything below is neither made nor pushed again, and it takes seconds."""
    with built(builder, base_image, source("second")) as second:
        told("rebuilt after a change of code", second)
        before, after = layers(builder, first.image), layers(builder, second.image)
        assert len(before) == len(after)
        assert [one == other for one, other in zip(before, after, strict=True)] == [True] * (len(before) - 1) + [False]
        assert second.seconds < REBUILD_SECONDS
        assert said_by(engine, second) == f"second {SESSION}"


def test_change_of_requirements_changes_packages_and_code(
    builder: Builder, base_image: str, first: Built, told: Told
) -> None:
    """What was installed of Debian stays, and the base too."""
    with built(builder, base_image, source("first", f"{REQUIREMENTS}tabulate\n")) as second:
        told("rebuilt after a change of requirements", second)
        before, after = layers(builder, first.image), layers(builder, second.image)
        assert len(before) == len(after)
        changed = [one != other for one, other in zip(before, after, strict=True)]
        assert changed == [False] * (len(before) - 2) + [True, True]


def test_function_is_the_same_without_the_base_image(engine: Engine, builder: Builder, first: Built) -> None:
    """With BASE_IMAGE unset the base is a stage of the function's own build."""
    with built(builder, "base", source("first")) as alone:
        packages = [run_in(builder, image, "python", "-c", SITE_PACKAGES) for image in (first.image, alone.image)]
        assert packages[0] == packages[1]
        assert "faasbase" in packages[0]
        assert "iniconfig" in packages[0]
        assert said_by(engine, alone) == said_by(engine, first)


def said_by(engine: Engine, function: Built) -> str:
    """Return what *function* answers."""
    with run_container(engine, function.image) as container:
        container.wait_healthy()
        return str(httpx2.get(container.url).json())

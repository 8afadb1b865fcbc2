"""What the end-to-end tests share: the engine, the base images, and images built once and removed at the end."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from deploy.images.building import Builder
from deploy.images.engine import Engine, find_engine
from deploy.images.project import Function
from deploy.images.standins import base_images
from tests.e2e import containers
from tests.processes import Source

HERE = Path(__file__).parent
# The first test waits for the base image, which starts with a whole Debian where none can be pulled.
TEST_SECONDS = 1500


class Build(Protocol):
    """Build an image and return its name."""

    def __call__(
        self,
        source: Source,
        name: str = "fn",
        *,
        options: Sequence[str] = (),
        base: str | None = None,
        shape: str = "direct",
        **build_args: str,
    ) -> str:
        """
        Build *source*, the text of a ``handler.py``, several files by name, or a handler folder.

        The same arguments give the same image.  *base* is the shared base image when None; ``"base"``, the Dockerfile's
        own stage, makes one for this function alone.  *options* are the engine's.

        Raises:
            EngineError: A step failed; the message ends with the log.
        """
        ...


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give these tests the time that building takes; what they wait for has deadlines of its own."""
    for item in items:
        if item.path.is_relative_to(HERE) and not any(item.iter_markers("timeout")):
            item.add_marker(pytest.mark.timeout(TEST_SECONDS))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Forget the containers of the test before."""
    containers.started.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show in the report of a failure what its containers wrote, and note in each what images are built on."""
    report = yield
    if isinstance(item, pytest.Function) and call.when == "call":
        bases: Any = item.funcargs.get("bases", {})
        report.user_properties += [
            ("base image", f"{name}: {image or 'not to be had'}") for name, image in bases.items()
        ]
    if report.failed:
        for container in containers.started:
            report.sections.append((f"output of container {container.name}", container.tail()))
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the images that others were built on, and list what tests recorded as the property ``measured``."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    found = [found for report in reports if report.when == "call" for found in report.user_properties]
    for text in sorted({str(value) for name, value in found if name == "base image"}):
        terminalreporter.write_line(text)
    for text in [value for name, value in found if name == "measured"]:
        terminalreporter.write_line(str(text))


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """Return the container engine of this machine."""
    return find_engine(tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="session")
def bases(engine: Engine) -> Mapping[str, str]:
    """Return the build arguments that name the images which everything is built on."""
    return base_images(engine)


@pytest.fixture(scope="session")
def builder(engine: Engine, bases: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Return what builds images here, in a folder of its own."""
    return Builder(engine, tmp_path_factory.mktemp("images"), bases)


@pytest.fixture(scope="session")
def base_image(builder: Builder) -> Iterator[str]:
    """Build the shared base image once."""
    image = image_name("faasbase")
    builder.base(image)
    yield image
    builder.engine.remove_image(image)


@pytest.fixture(scope="session")
def build(builder: Builder, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Build]:
    """Return a function that builds images, each once, and remove them at the end."""
    built: dict[object, str] = {}
    numbers = itertools.count(1)

    def build(
        source: Source,
        name: str = "fn",
        *,
        options: Sequence[str] = (),
        base: str | None = None,
        shape: str = "direct",
        **build_args: str,
    ) -> str:
        arguments = {"SHAPE": shape, **build_args}
        key = (repr(source), name, tuple(options), base, tuple(sorted(arguments.items())))
        if key not in built:
            image = image_name(name, next(numbers))
            handler = source if isinstance(source, Path) else write(source, tmp_path_factory.mktemp(name))
            builder.function(Function(name, handler, image, arguments), *options, base=base or base_image)
            built[key] = image
        return built[key]

    yield build
    for image in built.values():
        builder.engine.remove_image(image)


def image_name(name: str, number: int = 0) -> str:
    """Return a name for an image of this session."""
    return f"localhost/{containers.SESSION}/{name}:{number or 'latest'}"


def write(source: str | Mapping[str, str], folder: Path) -> Path:
    """Write the files of a handler to *folder* and return it."""
    files = {"handler.py": source} if isinstance(source, str) else source
    for name, text in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return folder

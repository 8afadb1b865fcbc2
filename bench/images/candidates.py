"""What is compared: a new function directly and behind of-watchdog, and the official template's shape."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.images.building import Builder, pip_configuration
from deploy.images.engine import Engine
from deploy.images.project import TEMPLATE, Function

OFFICIAL_SHAPE = Path(__file__).parent / "official-shape"
PREFIX = f"localhost/bench-{os.getpid()}"


@dataclass(frozen=True)
class Candidate:
    """An image that is measured, and as whom it runs."""

    name: str
    image: str
    user: str


@dataclass(frozen=True)
class Compared:
    """The candidates, and the images that they are built on."""

    candidates: Sequence[Candidate]
    python: str
    base: str


@contextmanager
def built(engine: Engine, folder: Path, bases: Mapping[str, str]) -> Iterator[Compared]:
    """Build all candidates, those with of-watchdog only where that can be had, and remove them at the end."""
    images = {name: f"{PREFIX}/{name}" for name in ("official-shape", "hello-watchdog", "hello-direct", "faasbase")}
    try:
        yield Compared(
            _candidates(engine, Builder(engine, folder, bases), bases, images),
            bases["PYTHON_IMAGE"],
            images["faasbase"],
        )
    finally:
        for image in images.values():
            engine.remove_image(image)


def _candidates(
    engine: Engine, builder: Builder, bases: Mapping[str, str], images: Mapping[str, str]
) -> list[Candidate]:
    builder.base(images["faasbase"])
    found = [Candidate("ours, direct", _ours(builder, images, "direct"), "12000:12000")]
    if bases["WATCHDOG_IMAGE"]:
        found.append(Candidate("ours, of-watchdog", _ours(builder, images, "watchdog"), "12000:12000"))
        # The user of its packages: any other cannot read them.
        found.append(Candidate("official shape", _official_shape(engine, bases, images["official-shape"]), "app"))
    return found


def size_bytes(engine: Engine, image: str) -> int:
    """Return what *image* takes unpacked, all layers together."""
    return int(engine.inspect(image)["Size"])


def _ours(builder: Builder, images: Mapping[str, str], shape: str) -> str:
    function = Function("hello", TEMPLATE / "function", images[f"hello-{shape}"], {"SHAPE": shape})
    return builder.function(function, base=images["faasbase"]).image


def _official_shape(engine: Engine, bases: Mapping[str, str], image: str) -> str:
    flags = [flag for name, value in bases.items() for flag in ("--build-arg", f"{name}={value}")]
    # Whatever configures pip here is needed in a build too.
    if configuration := pip_configuration():
        flags += ["--secret", f"id=pipconf,src={configuration}"]
    engine.build(OFFICIAL_SHAPE, image, flags)
    return image

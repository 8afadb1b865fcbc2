"""What an image holds: the layers that the engine saves, and the root file system that a container starts with."""

from __future__ import annotations

import contextlib
import json
import re
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from .engine import Engine, EngineError

SAVE_SECONDS = 300.0
# What engines write around an instruction: shells, flags, arguments of the build, hashes of what was copied.
NOISE = re.compile(
    r"^(RUN )?\|\d+ (\w+=.*? )*(?=/bin/sh -c )|/bin/sh -c (#\(nop\) +)?|--mount=\S+\s+|(dir|file|multi):\w+ in |"
    r" # buildkit$"
)


@dataclass(frozen=True)
class Layer:
    """A layer: *diff_id* is the digest of its tar, and *made_by* the instruction that made it."""

    diff_id: str
    made_by: str
    size_bytes: int
    member: str


@dataclass(frozen=True)
class Saved:
    """An image as the engine saves it: its configuration, and its layers from the lowest on."""

    image: str
    config: Mapping[str, Any]
    layers: Sequence[Layer]
    archive: tarfile.TarFile

    @property
    def size_bytes(self) -> int:
        """Return the size of all layers unpacked."""
        return sum(layer.size_bytes for layer in self.layers)

    @contextlib.contextmanager
    def open(self, layer: Layer) -> Iterator[tarfile.TarFile]:
        """Open the tar of *layer*."""
        with tarfile.open(fileobj=_content(self.archive, layer.member)) as content:
            yield content


@contextlib.contextmanager
def saved(engine: Engine, image: str) -> Iterator[Saved]:
    """Have *engine* save *image* for the time of the block."""
    with tempfile.TemporaryDirectory(prefix="saved-") as folder:
        path = Path(folder) / "image.tar"
        engine.run("save", "--output", str(path), image, timeout_seconds=SAVE_SECONDS)
        with tarfile.open(path) as archive:
            manifest = json.load(_content(archive, "manifest.json"))[0]
            config = json.load(_content(archive, manifest["Config"]))
            yield Saved(image, config, list(_layers(archive, config, manifest["Layers"])), archive)


@contextlib.contextmanager
def root_file_system(engine: Engine, image: str) -> Iterator[tarfile.TarFile]:
    """Open the tar of all that a container of *image* starts with, for the time of the block."""
    container = engine.run("create", image, "true").strip()
    try:
        with tempfile.TemporaryDirectory(prefix="root-") as folder:
            path = Path(folder) / "root.tar"
            engine.run("export", "--output", str(path), container, timeout_seconds=SAVE_SECONDS)
            with tarfile.open(path) as root:
                yield root
    finally:
        engine.run("rm", "--force", container)


def name_of(member: tarfile.TarInfo) -> str:
    """Return the path of a tar's *member* from the root on, without a slash in front: engines differ in it."""
    return member.name.removeprefix("./").strip("/")


def _layers(archive: tarfile.TarFile, config: Mapping[str, Any], members: Sequence[str]) -> Iterator[Layer]:
    steps = [step for step in config["history"] if not step.get("empty_layer")]
    for diff_id, member, step in zip(config["rootfs"]["diff_ids"], members, steps, strict=True):
        yield Layer(diff_id, _instruction(step.get("created_by", "")), _size(archive, member), member)


def _instruction(created_by: str) -> str:
    return " ".join(NOISE.sub("", created_by).removeprefix("RUN ").split())


def _size(archive: tarfile.TarFile, member: str) -> int:
    content = _content(archive, member)
    return content.seek(0, 2)


def _content(archive: tarfile.TarFile, member: str) -> IO[bytes]:
    content = archive.extractfile(member)
    if content is None:
        raise EngineError(f"{member} of a saved image is no file")
    return content

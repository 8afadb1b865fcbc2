"""Look into an image: every layer of it, and the root file system that they make together."""

from __future__ import annotations

import contextlib
import mmap
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from deploy.images.contents import Saved, name_of, root_file_system, saved
from deploy.images.engine import Engine

INSTALLED = re.compile(r"^Package: (.+)\nStatus: .* installed$", re.MULTILINE)
HASH_BASED, CHECKED = 0b01, 0b10
"""Flags of a ``.pyc`` (PEP 552): valid by the hash of its source, which is compared at each import or never."""


class Inspection:
    """An image, opened up; the lowest layers, *given* in number, are those of the image of Python."""

    def __init__(self, image: str, archive: Saved, root: tarfile.TarFile, given: int) -> None:
        self.image = image
        self._saved = archive
        self._root = root
        self._given = given

    @property
    def config(self) -> Mapping[str, Any]:
        """Return what the image says of itself and of how it is run."""
        config: Mapping[str, Any] = self._saved.config["config"]
        return config

    @cached_property
    def layered(self) -> Sequence[tuple[str, tarfile.TarInfo]]:
        """Return paths and entries of the layers above Python's, those that a later one hides included."""
        found: list[tuple[str, tarfile.TarInfo]] = []
        for layer in self._saved.layers[self._given :]:
            with self._saved.open(layer) as content:
                found += [(name_of(member), member) for member in content]
        return found

    def layers_with(self, folder: str) -> list[str]:
        """Return the digests of the layers above Python's that put files into *folder*, the lowest first."""
        found = []
        for layer in self._saved.layers[self._given :]:
            with self._saved.open(layer) as content:
                if any(name_of(member).startswith(f"{folder}/") for member in content):
                    found.append(layer.diff_id)
        return found

    @cached_property
    def root(self) -> Mapping[str, tarfile.TarInfo]:
        """Return by path what a container starts with."""
        return {name_of(member): member for member in self._root}

    def under(self, *folders: str) -> Iterator[tuple[str, tarfile.TarInfo]]:
        """Yield path and entry of each of *folders* and of all below."""
        yield from ((path, entry) for path, entry in self.root.items() if f"{path}/".startswith(folders))

    def read(self, path: str, size_bytes: int = -1) -> bytes:
        """Return the beginning of a file, or all of it."""
        content = self._root.extractfile(self.root[path])
        assert content is not None, path
        return content.read(size_bytes)

    def packages(self) -> set[str]:
        """Return the Debian packages that dpkg has installed."""
        return set(INSTALLED.findall(self.read("var/lib/dpkg/status").decode()))

    def needs_no_source(self, path: str) -> bool:
        """Tell whether the bytecode at *path* is taken as it is, whatever the time and content of its source."""
        flags = int.from_bytes(self.read(path, 8)[4:], "little")
        return bool(flags & HASH_BASED) and not flags & CHECKED

    def tells(self, text: str) -> bool:
        """Tell whether *text* stands anywhere in the image: in a layer, its history or its settings."""
        with (
            Path(str(self._saved.archive.name)).open("rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as archive,
        ):
            return archive.find(text.encode()) >= 0


@contextlib.contextmanager
def inspected(engine: Engine, image: str, python_image: str) -> Iterator[Inspection]:
    """Open *image*, which was built on *python_image*, for the time of the block."""
    given = len(engine.inspect(python_image)["RootFS"]["Layers"])
    with saved(engine, image) as archive, root_file_system(engine, image) as root:
        yield Inspection(image, archive, root, given)

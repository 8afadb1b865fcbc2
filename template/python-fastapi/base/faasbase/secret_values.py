"""Which values the files of secrets hold that must be seen nowhere, within bounds of number and size."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

SHORTEST_SECRET = 6
"""Masking a value as short as ``1`` or ``true`` would make logs unreadable and hide nothing."""

_MAX_SECRET_FILES = 256
_MAX_SECRET_BYTES = 64 * 1024
_MAX_SCANNED_BYTES = 1024 * 1024
_MAX_VALUES_OF_FILE = 128
_PUBLIC_PEM = ("CERTIFICATE", "PUBLIC KEY", "CERTIFICATE REQUEST", "CRL", "PARAMETERS")
_PIECE = re.compile(rf"[^\s\"',;=]{{{2 * SHORTEST_SECRET + 1},}}=*")


class SecretFile(NamedTuple):
    """A file of the folder of secrets, and what tells that it has changed."""

    size: int
    path: str
    inode: int
    changed_ns: int


def secret_files(folder: Path) -> list[SecretFile]:
    """Return the files of *folder* with what tells that one has changed."""
    try:
        with os.scandir(folder) as entries:
            visible = (entry for entry in entries if not entry.name.startswith("."))
            return sorted(filter(None, map(_state, islice(visible, _MAX_SECRET_FILES))))
    except OSError:
        return []


def _state(entry: os.DirEntry[str]) -> SecretFile | None:
    try:
        status = entry.stat()
    except OSError:
        return None
    # Opening a pipe would wait for its writer.
    regular = S_ISREG(status.st_mode)
    return SecretFile(status.st_size, entry.path, status.st_ino, status.st_ctime_ns) if regular else None


def values_of(files: Iterable[SecretFile]) -> Iterator[str]:
    """Yield what is worth hiding of *files*."""
    left = _MAX_SCANNED_BYTES
    for secret in files:
        try:
            with Path(secret.path).open("rb") as file:
                content = file.read(min(_MAX_SECRET_BYTES, left))
        except OSError:
            continue
        left -= len(content)
        yield from islice(worth_hiding(pieces_of(content.decode("utf-8", "replace"))), _MAX_VALUES_OF_FILE)


def pieces_of(text: str) -> Iterator[str]:
    """Yield a secret whole, then what else it leaks by: lines of private PEM blocks, long words; nothing public."""
    prose, *blocks = text.replace("\\n", "\n").split("-----BEGIN ")
    lines: list[str] = []
    for block in blocks:
        label, _, rest = block.partition("-----")
        body, _, after = rest.partition("-----END ")
        prose += after.partition("-----")[2]
        lines += [] if label.endswith(_PUBLIC_PEM) else body.split()
    structured = prose.lstrip().startswith(("{", "["))
    if lines or structured or not blocks:
        yield text
    yield from (line for line in lines if len(line) > 2 * SHORTEST_SECRET)
    # Between PEM blocks stand the names of their owners; in JSON, other secrets.
    if structured or not blocks:
        yield from (piece[0] for piece in _PIECE.finditer(prose))


def worth_hiding(values: Iterable[str]) -> Iterator[str]:
    """Yield those of *values* that are neither short nor words of settings."""
    stripped = (value.strip() for value in values)
    yield from (v for v in stripped if len(v) >= SHORTEST_SECRET and v.lower() not in {"disabled", "enabled"})

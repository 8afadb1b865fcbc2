"""Bring one file into a folder under its key, whole or not at all."""

import os
from contextlib import suppress
from hashlib import sha256
from io import BufferedWriter
from pathlib import Path
from uuid import uuid4

from .errors import ChecksumError, ObjectKeyError
from .objects import StoredObject
from .sidecars import private, remove_sidecar, write_sidecar


class Upload:
    """
    A file on its way into the folder *root*.

    It is written beside its place, synced, and then renamed.  Every method blocks; `close` is the last one, always.
    """

    def __init__(self, root: Path, key: str) -> None:
        self._root, self._key = root, key
        self._digest, self._size_bytes = sha256(), 0
        # A name that no other process chooses, without a look at the disk.
        self._path = root / ".tmp" / uuid4().hex
        self._file: BufferedWriter | None = None

    def write(self, piece: bytes) -> None:
        """Append *piece*."""
        self._digest.update(piece)
        self._size_bytes += len(piece)
        self._opened().write(piece)

    def commit(self, content_type: str, expected_sha256: str | None) -> StoredObject:
        """
        Put the file in its place.

        Raises:
            ChecksumError: The bytes do not have *expected_sha256*.
            ObjectKeyError: A part of the key is an object, or the key is the first part of others.
        """
        stored = StoredObject(self._key, self._size_bytes, content_type, self._digest.hexdigest())
        if expected_sha256 not in (None, stored.sha256):
            raise ChecksumError("put", self._key)
        file = self._opened()
        file.flush()
        os.fsync(file.fileno())
        status = os.fstat(file.fileno())
        write_sidecar(self._root, stored, status)
        replaced = self._move()
        if replaced is not None:
            remove_sidecar(self._root, self._key, replaced)
        return stored

    def close(self) -> None:
        """Close the file and remove it, if it is not in its place already."""
        if self._file is not None:
            with suppress(OSError):
                # Closing writes what is buffered, which fails again where the disk is full.
                self._file.close()
            self._path.unlink(missing_ok=True)

    def _opened(self) -> BufferedWriter:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._file = open(self._path, "xb", opener=private)  # noqa: SIM115 - `close` closes it
        return self._file

    def _move(self) -> os.stat_result | None:
        target = self._root / self._key
        try:
            replaced = self._rename(target, tries=5)
        except (IsADirectoryError, NotADirectoryError, FileExistsError) as exc:
            raise ObjectKeyError(self._key, "in a folder, `a` and `a/b` cannot both be objects") from exc
        _sync_folder(target.parent)
        return replaced

    def _rename(self, target: Path, tries: int) -> os.stat_result | None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            replaced = _status(target)
            self._path.replace(target)
        except FileNotFoundError:
            # A delete that runs beside this takes empty folders away.
            if tries == 0:
                raise
            return self._rename(target, tries - 1)
        return replaced


def remove(root: Path, key: str) -> None:
    """Remove the object under *key* if there is one, and the folders that it leaves empty."""
    target = root / key
    status = _status(target)
    if status is None:
        return
    target.unlink(missing_ok=True)
    remove_sidecar(root, key, status)
    _remove_empty(target.parent, root)
    _remove_empty(root / ".meta" / key, root / ".meta")


def _status(path: Path) -> os.stat_result | None:
    try:
        status = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return None if path.is_dir() else status


def _remove_empty(folder: Path, up_to: Path) -> None:
    with suppress(OSError):
        while folder != up_to:
            folder.rmdir()
            folder = folder.parent


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""
Content type and checksum of files, beside them in ``.meta/``.

A sidecar's name holds the inode and time of the very file that it describes, and is written before that file gets its
name: whoever has a file open finds what belongs to it, even while another one takes its place.
"""

import json
import mimetypes
import os
from contextlib import suppress
from hashlib import file_digest
from io import BufferedReader
from pathlib import Path

from .objects import DEFAULT_CONTENT_TYPE, StoredObject


def write_sidecar(root: Path, stored: StoredObject, status: os.stat_result) -> None:
    """Describe the file with *status* as *stored*."""
    path = _sidecar(root, stored.key, status)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    text = json.dumps({"content_type": stored.content_type, "sha256": stored.sha256})
    write_synced(path, text.encode())


def read_sidecar(root: Path, key: str, file: BufferedReader) -> StoredObject:
    """Return what is known of the open *file*; one that was put there by hand is described on the way."""
    status = os.fstat(file.fileno())
    try:
        known = json.loads(_sidecar(root, key, status).read_bytes())
        return StoredObject(key, status.st_size, str(known["content_type"]), str(known["sha256"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return _described(root, key, file, status)


def remove_sidecar(root: Path, key: str, status: os.stat_result) -> None:
    """Forget the file with *status*."""
    _sidecar(root, key, status).unlink(missing_ok=True)


def write_synced(path: Path, data: bytes) -> None:
    """Write *data* to *path*, for this user only, and wait until the disk has it."""
    with open(path, "wb", opener=private) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def private(path: str, flags: int) -> int:
    """Open files as `open` does, but make them for this user only."""
    return os.open(path, flags, 0o600)


def _described(root: Path, key: str, file: BufferedReader, status: os.stat_result) -> StoredObject:
    digest = file_digest(file, "sha256").hexdigest()
    file.seek(0)
    content_type = mimetypes.guess_type(key)[0] or DEFAULT_CONTENT_TYPE
    stored = StoredObject(key, status.st_size, content_type, digest)
    with suppress(OSError):
        # In a folder that may only be read it is described anew each time.
        write_sidecar(root, stored, status)
    return stored


def _sidecar(root: Path, key: str, status: os.stat_result) -> Path:
    # Keys have no part that begins with a dot, so `a` and `a/b` do not get into each other's way here.
    return root / ".meta" / key / f".{status.st_ino}-{status.st_mtime_ns}.json"

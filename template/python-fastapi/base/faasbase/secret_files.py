"""Read the files that hold secrets: small ones, inside their folder, text; and tell when one has changed."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from pathlib import Path
from stat import S_ISREG
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pydantic import SecretStr

MAX_SECRET_BYTES = 64 * 1024

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,252}")
_ATTEMPTS = 10
# Two writes within one tick of the file system's clock look alike, and some clocks tick once in two seconds.
_SETTLED_NS = 2_500_000_000


class UnusableError(Exception):
    """There is a file, and it holds no secret; the text says why."""


class FileState(NamedTuple):
    """What tells that a file is another one, or has another content."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int


class Reading(NamedTuple):
    """The content of a secret's file, and the state that the file had."""

    value: SecretStr
    state: FileState
    settled: bool
    """False where a write that follows could leave the same `state`: such a file is to be read at every use."""


def secret_name(text: str) -> str:
    """
    Return *text* if it is a file's name as Kubernetes allows for secrets.

    Raises:
        ValueError: It is not.  It is not shown: it may be the secret itself.
    """
    if not _NAME.fullmatch(text) or ".." in text:
        raise ValueError("must be the name of a secret, of letters, digits, `-`, `_` and `.`; no path, no value")
    return text


def still_holds(reading: Reading, path: str) -> bool:
    """Tell whether *path* is the file that *reading* is of, unchanged."""
    try:
        return reading.settled and _state(os.stat(path)) == reading.state  # noqa: PTH116 - a Path costs as much again
    except OSError:
        return False


def read_secret(path: str) -> Reading:
    """
    Read the file at *path*, to which symbolic links within its folder may lead.

    Raises:
        OSError: There is none, or it may not be read.
        UnusableError: It leads elsewhere, or it is no file, empty, too large or no text.
    """
    for _ in range(_ATTEMPTS - 1):
        # The link may be turned between looking where it leads and opening that.
        with suppress(FileNotFoundError):
            return _read_once(path)
    return _read_once(path)


def _read_once(path: str) -> Reading:
    # Path.resolve makes a RuntimeError of a link to itself.
    target = Path(os.path.realpath(path, strict=True))
    if not target.is_relative_to(Path(path).parent.resolve()):
        raise UnusableError("it leads out of the secrets' folder")
    # Opening a pipe would wait for its writer.
    descriptor = os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        status = os.fstat(descriptor)
        if not S_ISREG(status.st_mode):
            raise UnusableError("it is no file")
        content = os.read(descriptor, MAX_SECRET_BYTES + 1)
    finally:
        os.close(descriptor)
    settled = time.time_ns() - status.st_ctime_ns > _SETTLED_NS
    return Reading(_value(content), _state(status), settled)


def _value(content: bytes) -> SecretStr:
    # Functions of the classic form that have no secrets do without pydantic.
    from pydantic import SecretStr

    if len(content) > MAX_SECRET_BYTES:
        raise UnusableError(f"it has more than {MAX_SECRET_BYTES} bytes")
    if not content.strip():
        raise UnusableError("it is empty")
    try:
        return SecretStr(content.decode("utf-8").rstrip("\r\n"))
    except UnicodeDecodeError:
        raise UnusableError("it is no text in UTF-8: keep bytes as base64") from None


def _state(status: os.stat_result) -> FileState:
    return FileState(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)

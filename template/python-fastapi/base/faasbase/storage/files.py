"""Objects as the files of a folder (``STORAGE_URL=file:///path``), served by the function itself."""

import errno
import os
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from hashlib import sha256 as new_sha256
from io import BufferedReader
from itertools import islice
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote

from starlette.types import ASGIApp

from ..backends import counts_in_query, split_url
from ..context import current_call
from ..errors import SettingError
from .backend import Source
from .errors import ChecksumError, ObjectNotFoundError, ObjectTooLargeError, StorageError
from .links import Links, load_signing_key
from .objects import StoredObject
from .serving import ObjectsApp
from .sidecars import read_sidecar
from .threads import Threads
from .uploads import Upload, remove

T = TypeVar("T")

_PIECE_BYTES = 256 * 1024
_PAGE = 100
_THREADS = 8


class FileStore:
    """
    Keep objects below the folder *root*, which is made when the first one comes; several processes may share it.

    Nothing is removed but by `delete`, and there is no bound but the disk's: ``file:///tmp/objects`` grows until the
    pod ends or the node evicts it.  On a full disk `write` is a `StorageError`, and what was there before stays.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._threads = Threads(_THREADS, "storage")
        self._links: Links | None = None
        self.asgi_app: ASGIApp | None = ObjectsApp(self)

    @classmethod
    def from_url(cls, url: str) -> "FileStore":
        """Read the folder from ``file:///path``."""
        counts_in_query("STORAGE_URL", url, {})
        parts = split_url("STORAGE_URL", url)
        path = Path(unquote(parts.path))
        if parts.netloc not in ("", "localhost") or not path.is_absolute():
            raise SettingError("STORAGE_URL", "must name an absolute path, such as file:///tmp/objects")
        return cls(path)

    def warm_up(self) -> None:
        """Do nothing: a folder needs no connection."""

    async def write(self, key: str, source: Source, content_type: str, sha256: str | None) -> StoredObject:
        upload = Upload(self._root, key)
        try:
            if isinstance(source, AsyncIterable):
                async for piece in _gathered(source):
                    await self._run("put", key, lambda piece=piece: upload.write(piece))  # type: ignore[misc]
            else:
                await self._run("put", key, lambda: _fill(upload, source))
            return await self._run("put", key, lambda: upload.commit(content_type, sha256))
        finally:
            await self._run("put", key, upload.close)

    async def stat(self, key: str) -> StoredObject | None:
        return await self._run("stat", key, lambda: self._stat(key))

    async def read(self, key: str, max_bytes: int) -> bytes:
        return await self._run("get", key, lambda: self._read(key, max_bytes))

    async def open(self, key: str) -> AsyncIterator[bytes]:
        async with self.opened(key) as (_, pieces):
            async for piece in pieces:
                yield piece

    @asynccontextmanager
    async def opened(self, key: str) -> AsyncIterator[tuple[StoredObject, AsyncIterator[bytes]]]:
        """Give what is known of the object and its pieces, both of the same version of it."""
        reader = _Reader(self._root, key)
        try:
            stored = await self._run("get", key, reader.open)
            yield stored, self._pieces(key, reader)
        finally:
            reader.close()

    async def delete(self, key: str) -> None:
        await self._run("delete", key, lambda: remove(self._root, key))

    async def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        async for key in self.list_keys(prefix):
            stored = await self.stat(key)
            # One that was deleted meanwhile is not an object any more.
            if stored is not None:
                yield stored

    async def list_keys(self, prefix: str) -> AsyncIterator[str]:
        keys = _walk(self._root, prefix.rpartition("/")[0], prefix)
        while page := await self._run("list", prefix, lambda: tuple(islice(keys, _PAGE))):
            for key in page:
                yield key

    async def url(self, key: str, expires_seconds: float) -> str:
        call = current_call()
        links = await self.links()
        return (call.base_url if call else "") + links.path(key, expires_seconds)

    async def upload_url(self, key: str, content_type: str, size_bytes: int | None, expires_seconds: float) -> str:
        call = current_call()
        links = await self.links()
        return (call.base_url if call else "") + links.upload_path(key, content_type, size_bytes, expires_seconds)

    async def links(self) -> Links:
        """Return what signs and checks the addresses of this folder's objects."""
        if self._links is None:
            self._links = Links(await self._run("sign", "", lambda: load_signing_key(self._root)))
        return self._links

    async def close(self) -> None:
        self._threads.close()

    async def _pieces(self, key: str, reader: "_Reader") -> AsyncIterator[bytes]:
        while piece := await self._run("get", key, reader.piece):
            yield piece

    async def _run(self, operation: str, key: str, work: Callable[[], T]) -> T:
        try:
            return await self._threads.run(work)
        except FileNotFoundError as exc:
            raise ObjectNotFoundError(operation, key) from exc
        except OSError as exc:
            raise StorageError(operation, key, exc.strerror or type(exc).__name__) from exc

    def _stat(self, key: str) -> StoredObject | None:
        try:
            with _open(self._root / key) as file:
                return read_sidecar(self._root, key, file)
        except FileNotFoundError:
            return None

    def _read(self, key: str, max_bytes: int) -> bytes:
        with _open(self._root / key) as file:
            stored = read_sidecar(self._root, key, file)
            if stored.size_bytes > max_bytes:
                raise ObjectTooLargeError(key, stored.size_bytes, max_bytes)
            data = file.read(stored.size_bytes)
        if new_sha256(data).hexdigest() != stored.sha256:
            raise ChecksumError("get", key)
        return data


class _Reader:
    """Reads one object piece by piece and checks it at the end; every method blocks."""

    def __init__(self, root: Path, key: str) -> None:
        self._root, self._key, self._digest = root, key, new_sha256()
        self._file: BufferedReader | None = None
        self._sha256 = ""

    def open(self) -> StoredObject:
        self._file = _open(self._root / self._key)
        stored = read_sidecar(self._root, self._key, self._file)
        self._sha256 = stored.sha256
        return stored

    def piece(self) -> bytes:
        """Return the next piece, empty at the end; `ChecksumError` instead of the end where bytes are wrong."""
        piece = self._file.read(_PIECE_BYTES) if self._file else b""
        self._digest.update(piece)
        if not piece and self._digest.hexdigest() != self._sha256:
            raise ChecksumError("get", self._key)
        return piece

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _open(path: Path) -> BufferedReader:
    """Open *path* unless it is a folder or a link that someone put there; both are no objects."""
    try:
        return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW))
    except OSError as exc:
        if exc.errno in (errno.EISDIR, errno.ENOTDIR, errno.ELOOP):
            raise FileNotFoundError(exc.errno, exc.strerror) from exc
        raise


def _fill(upload: Upload, source: bytes | Path) -> None:
    if isinstance(source, bytes):
        upload.write(source)
        return
    with source.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            upload.write(piece)


async def _gathered(chunks: AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    """Join small chunks, so that not every one of them goes to a thread by itself; yield at least one."""
    waiting = bytearray()
    async for chunk in chunks:
        waiting += chunk
        if len(waiting) >= _PIECE_BYTES:
            yield bytes(waiting)
            waiting.clear()
    yield bytes(waiting)


def _walk(root: Path, folder: str, prefix: str) -> Iterator[str]:
    """Yield the keys below *folder* that start with *prefix*, in the order of their bytes."""
    try:
        with os.scandir(root / folder) as found:
            entries = [entry.name + "/" * entry.is_dir(follow_symlinks=False) for entry in found]
    except (FileNotFoundError, NotADirectoryError):
        return
    # A folder sorts as its keys do, with the slash: `a-b` comes before `a/b`.
    for name in sorted(entries, key=os.fsencode):
        key = f"{folder}/{name}" if folder else name
        if name.startswith(".") or not key.startswith(prefix[: len(key)]):
            continue
        if name.endswith("/"):
            yield from _walk(root, key.rstrip("/"), prefix)
        elif key.startswith(prefix):
            yield key

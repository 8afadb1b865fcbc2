"""The function's store as its handlers hold it."""

from collections.abc import AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager
from hashlib import file_digest, sha256
from pathlib import Path

from starlette.types import ASGIApp

from ..tracing import span
from .backend import StoreBackend, open_backend
from .objects import (
    DEFAULT_CONTENT_TYPE,
    StoredObject,
    check_content_type,
    check_key,
    check_prefix,
    content_key,
)
from .threads import Threads

MAX_GET_BYTES = 64 * 1024 * 1024
"""What `Store.get` takes into memory unless it is told otherwise."""
EXPIRES_SECONDS = 3600.0
MAX_EXPIRES_SECONDS = 7 * 24 * 3600.0
"""The longest that S3 lets a presigned URL live."""

# Below this, hashing takes less time than the way to a thread and back.
_HASH_ON_LOOP_BYTES = 64 * 1024
_HASH_THREADS = 2


class Store:
    """Keep objects in *backend*.  What goes wrong outside is a `StorageError` with the operation and the key."""

    def __init__(self, backend: StoreBackend) -> None:
        self._backend = backend
        self._threads = Threads(_HASH_THREADS, "hash")

    @property
    def asgi_app(self) -> ASGIApp | None:
        """Answers ``/_/objects/<key>`` where the function itself has to serve its objects, else None."""
        return self._backend.asgi_app

    async def put(
        self,
        data: bytes | Path,
        *,
        key: str | None = None,
        content_type: str = DEFAULT_CONTENT_TYPE,
    ) -> StoredObject:
        """
        Store bytes, or the content of a file, under *key*, in place of what was there.

        Without a *key* the object is named by its content, and what is there already is not written again.  The object
        is stored whole or not at all, on cancellation too.

        Raises:
            ObjectKeyError: *key* cannot be used.
            ValueError: *content_type* is none.
        """
        check_content_type(content_type)
        with span("storage.put") as current:
            stored = await self._put(data, key, content_type)
            current.set_attribute("storage.size_bytes", stored.size_bytes)
            return stored

    async def put_stream(
        self, key: str, chunks: AsyncIterable[bytes], *, content_type: str = DEFAULT_CONTENT_TYPE
    ) -> StoredObject:
        """Store *chunks* under *key* as they come, in bounded memory; whole or not at all, as `put` does."""
        check_content_type(content_type)
        with span("storage.put") as current:
            stored = await self._backend.write(check_key(key), chunks, content_type, None)
            current.set_attribute("storage.size_bytes", stored.size_bytes)
            return stored

    async def get(self, key: str, *, max_bytes: int = MAX_GET_BYTES) -> bytes:
        """
        Return the object's bytes.

        Raises:
            ObjectNotFoundError: There is no such object.
            ObjectTooLargeError: It has more than *max_bytes*, and `open` is the way to read it.
            ChecksumError: The bytes are not those that were stored.
        """
        with span("storage.get"):
            return await self._backend.read(check_key(key), max_bytes)

    def open(self, key: str) -> AsyncIterator[bytes]:
        """Yield the object's bytes piece by piece; raises as `get` does, the checksum after the last piece."""
        return self._backend.open(check_key(key))

    async def stat(self, key: str) -> StoredObject | None:
        """Return what is known of the object, or None if there is none."""
        with span("storage.stat"):
            return await self._backend.stat(check_key(key))

    async def delete(self, key: str) -> None:
        """Remove the object, if there is one."""
        with span("storage.delete"):
            await self._backend.delete(check_key(key))

    def list_keys(self, prefix: str = "") -> AsyncIterator[str]:
        """Yield the keys alone, as `list` orders them; in S3 `list` looks at every object, and this does not."""
        return self._backend.list_keys(check_prefix(prefix))

    def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """Yield the objects whose keys start with *prefix*, in the order of their keys' bytes (SeaweedFS: its own)."""
        return self._backend.list(check_prefix(prefix))

    async def url(self, key: str, *, expires_seconds: float = EXPIRES_SECONDS) -> str:
        """
        Return an address by which anyone who has it may GET the object, for *expires_seconds* (at most seven days).

        It is made, and does not break, even if there is no such object.
        """
        _check_expiry(expires_seconds)
        with span("storage.url"):
            return await self._backend.url(check_key(key), expires_seconds)

    async def upload_url(
        self,
        key: str,
        *,
        content_type: str = DEFAULT_CONTENT_TYPE,
        size_bytes: int | None = None,
        expires_seconds: float = EXPIRES_SECONDS,
    ) -> str:
        """
        Return an address by which anyone who has it may PUT the object, as often as they like, for *expires_seconds*.

        They must send ``Content-Type: `` *content_type*, and exactly *size_bytes* where that is given; else the size is
        up to them (``file:///`` takes what a call may have, ``MAX_BODY_BYTES``).  In S3 the object's SHA-256 is not
        known afterwards, and pages of other origins need the bucket's CORS rules.
        """
        _check_expiry(expires_seconds)
        check_content_type(content_type)
        if size_bytes is not None and size_bytes < 0:
            raise ValueError("size_bytes must not be negative")
        with span("storage.url"):
            return await self._backend.upload_url(check_key(key), content_type, size_bytes, expires_seconds)

    def warm_up(self) -> None:
        """Begin, in the background, what the first operation would wait for, where the store's URL asks for it."""
        self._backend.warm_up()

    async def close(self) -> None:
        """Give up the back end's connections."""
        self._threads.close()
        await self._backend.close()

    async def _put(self, data: bytes | Path, key: str | None, content_type: str) -> StoredObject:
        if key is not None:
            return await self._backend.write(check_key(key), data, content_type, None)
        digest = await _sha256(data, self._threads)
        stored = await self._backend.stat(content_key(digest))
        if stored is not None and (stored.sha256, stored.content_type) == (digest, content_type):
            return stored
        # A file may change between the two readings of it; then it must not get this key.
        return await self._backend.write(content_key(digest), data, content_type, digest)


def _check_expiry(expires_seconds: float) -> None:
    if not 0 < expires_seconds <= MAX_EXPIRES_SECONDS:
        raise ValueError("expires_seconds must be more than zero and at most seven days")


async def _sha256(data: bytes | Path, threads: Threads) -> str:
    if isinstance(data, Path):
        return await threads.run(lambda: _sha256_of_file(data))
    if len(data) > _HASH_ON_LOOP_BYTES:
        return await threads.run(lambda: sha256(data).hexdigest())
    return sha256(data).hexdigest()


def _sha256_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()


def open_store(url: str) -> Store:
    """
    Make the store that *url* (``STORAGE_URL``) names; nothing is connected or created yet.

    Raises:
        SettingError: The scheme or another part of *url* cannot be used.
    """
    return Store(open_backend(url))


_active: list[Store] = []


@contextmanager
def activate_store(store: Store) -> Iterator[Store]:
    """Make *store* what `current_store` returns; the caller still closes it."""
    _active.append(store)
    try:
        yield store
    finally:
        _active.remove(store)


def current_store() -> Store:
    """
    Return the store of this process.

    Raises:
        RuntimeError: None is active, which means outside a running function and its tests.
    """
    if not _active:
        raise RuntimeError("no store is active: use activate_store(open_store(url))")
    return _active[-1]

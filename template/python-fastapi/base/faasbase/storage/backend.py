"""What a store keeps its objects in, chosen by the scheme of ``STORAGE_URL``."""

from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import Any, Protocol, cast

from starlette.types import ASGIApp

from ..backends import backend_of
from .objects import StoredObject

BACKENDS = {"file": "faasbase.storage.files:FileStore", "s3": "faasbase.storage.s3:S3Store"}

Source = bytes | Path | AsyncIterable[bytes]
"""Where an object's bytes come from: memory, a file, or a stream whose length nobody knows yet."""


class StoreBackend(Protocol):
    """
    Keeps objects under keys that `check_key` has passed.

    What goes wrong outside is a `StorageError`.  A cancelled or failed `write` leaves the key as it was.
    """

    @property
    def asgi_app(self) -> ASGIApp | None:
        """Answers ``/_/objects/<key>`` where the function itself has to serve its objects, else None."""

    def warm_up(self) -> None:
        """Begin, in the background, what the first operation would wait for; where it is not worth it, do nothing."""

    async def write(self, key: str, source: Source, content_type: str, sha256: str | None) -> StoredObject:
        """Store *source*, whole or not at all; where *sha256* is given, bytes that have another are refused."""

    async def stat(self, key: str) -> StoredObject | None:
        """Return what is known of the object, or None if there is none."""

    async def read(self, key: str, max_bytes: int) -> bytes:
        """Return the object's bytes, checked; `ObjectTooLargeError` where they are more than *max_bytes*."""

    def open(self, key: str) -> AsyncIterator[bytes]:
        """Yield the object's bytes piece by piece; a wrong checksum is an error after the last one."""

    async def delete(self, key: str) -> None:
        """Remove the object, if there is one."""

    def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        """Yield the objects whose keys start with *prefix*, in the order of their keys' bytes."""

    def list_keys(self, prefix: str) -> AsyncIterator[str]:
        """Yield the keys alone, in the same order; cheaper where a look at each object is a request."""

    async def url(self, key: str, expires_seconds: float) -> str:
        """Return an address by which anyone may GET the object for *expires_seconds*."""

    async def upload_url(self, key: str, content_type: str, size_bytes: int | None, expires_seconds: float) -> str:
        """Return an address by which anyone may PUT the object for *expires_seconds*, as told and not otherwise."""

    async def close(self) -> None:
        """Give up connections; may be called twice."""


def open_backend(url: str) -> StoreBackend:
    """Make the back end that *url* names; nothing is connected or created yet."""
    backend: Any = backend_of("STORAGE_URL", url, BACKENDS)
    return cast(StoreBackend, backend.from_url(url))

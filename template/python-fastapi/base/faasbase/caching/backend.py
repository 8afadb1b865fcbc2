"""What a cache keeps its entries in, chosen by the scheme of ``CACHE_URL``."""

from typing import Any, Protocol, cast

from ..backends import backend_of
from ..errors import FaasError

BACKENDS = {"memory": "faasbase.caching.memory:MemoryCache"}


class CacheError(FaasError):
    """The back end could not do what was asked; the message names no address and no key."""


class CacheBackend(Protocol):
    """
    Keeps bytes under a key for a time.

    Each method raises `CacheError` or OSError (TimeoutError, ConnectionError) and nothing else where it cannot, and
    may be cancelled at any await.
    """

    async def get(self, key: str) -> bytes | None:
        """Return the value, or None if there is none or its time is over."""

    async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        """Keep *value* for at most *ttl_seconds* (more than zero), in place of an earlier one."""

    async def delete(self, key: str) -> None:
        """Forget *key*, if there is such an entry."""

    async def close(self) -> None:
        """Give up connections and memory; may be called twice."""


def open_backend(url: str) -> CacheBackend:
    """Make the back end that *url* names; nothing is connected yet."""
    backend: Any = backend_of("CACHE_URL", url, BACKENDS)
    return cast(CacheBackend, backend.from_url(url))

"""What a cache keeps its entries in, chosen by the scheme of ``CACHE_URL``."""

from __future__ import annotations

from typing import Any, Protocol, cast, runtime_checkable

from ..backends import backend_of
from ..errors import FaasError
from .options import CacheOptions

BACKENDS = {
    "memory": "faasbase.caching.memory:MemoryCache",
    "redis": "faasbase.caching.redis:RedisCache",
    "rediss": "faasbase.caching.redis:RedisCache",
}


class CacheError(FaasError):
    """The back end could not do what was asked; the message names no address and no key."""


class NotDoneError(CacheError):
    """The back end was not asked, or refused: nothing of what was asked is done, nor will be."""


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


@runtime_checkable
class SharedBackend(CacheBackend, Protocol):
    """
    A back end that several replicas ask: one of them holds the lease of a key while it loads the value.

    Its methods end by themselves within the deadline of `options`, and it tells of outages by itself.
    """

    options: CacheOptions

    async def get_current(self, key: str) -> bytes | None:
        """
        Return the value as `get` does.

        Raises:
            NotDoneError: The server takes no values now, or has yet to hear of an invalidation.
        """

    async def get_stale(self, key: str) -> bytes | None:
        """Return the value that was kept for the case of an error."""

    async def claim(self, key: str, token: str, *, anew: bool) -> bytes | float | None:
        """
        Return the value; or None, which makes *token* the owner of the lease; or the seconds its owner has left.

        With *anew* a value is passed over, for one that nobody here can read.
        """

    async def holds(self, key: str, token: str) -> bool:
        """Tell whether the lease is *token*'s: False once its load's value would be refused."""

    async def renew(self, key: str, token: str) -> bool:
        """Begin the lease again; False if it is another's by now, or was ended by an invalidation."""

    async def fulfil(self, key: str, token: str, value: bytes, ttl_seconds: float, stale_seconds: float) -> bool:
        """Store *value* and end the lease; False and nothing stored if it is not *token*'s any more."""

    async def release(self, key: str, token: str) -> None:
        """End the lease, if it is still *token*'s."""


def open_backend(url: str) -> CacheBackend:
    """Make the back end that *url* names; nothing is connected yet."""
    backend: Any = backend_of("CACHE_URL", url, BACKENDS)
    return cast(CacheBackend, backend.from_url(url))

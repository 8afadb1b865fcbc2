"""The function's cache as its handlers hold it: it fails open, and loads each key once at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from .backend import CacheBackend, open_backend
from .blocking import BlockingCache
from .flights import Flight, Flights
from .operations import Operations
from .values import Found, Packed, Unfit, Values, values_of

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

DEADLINE_SECONDS = 0.25
"""The most that one operation of the back end may add to a call."""


class Cache:
    """
    Keep results under keys, in *backend*.

    No method raises for an outage: a failing back end is a miss, told in one log line and in the metrics.  Keys get
    the prefix *namespace*, so that functions which share a server do not share entries.
    """

    def __init__(
        self,
        backend: CacheBackend,
        *,
        namespace: str = "",
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        self._backend: CacheBackend = _Namespace(backend, namespace) if namespace else backend
        self._deadline_seconds = deadline_seconds
        self._operations = Operations()
        self._flights = Flights()
        self.blocking = BlockingCache(self._backend, self._operations, deadline_seconds)

    async def get(self, key: str) -> bytes | None:
        """Return the bytes under *key*, or None if there are none."""
        with self._operations.record("get", key) as outcome:
            value = await self._within_deadline(self._backend.get(key))
            outcome.name = "miss" if value is None else "hit"
            return value
        return None

    async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        """
        Keep *value* under *key* for *ttl_seconds*.

        Raises:
            ValueError: *ttl_seconds* is zero or less.
        """
        _check(ttl_seconds)
        self._flights.invalidate(key)
        self.blocking.outdate(key)
        await self._store(key, value, ttl_seconds)

    async def delete(self, key: str) -> None:
        """Forget *key*; the value of a load that is under way does not stay in the cache either."""
        flight = self._flights.invalidate(key)
        self.blocking.outdate(key)
        if flight is not None:
            # It must not land behind our delete.
            await flight.stored(self._deadline_seconds)
        await self._forget(key)

    async def get_or_load(
        self,
        key: str,
        load: Callable[[], Awaitable[T]],
        *,
        ttl_seconds: float,
        returns: type[T] | TypeAdapter[T] | Values[T],
    ) -> T:
        """
        Return the cached value of *key*, calling *load* at most once per key at a time.

        Concurrent callers in this process share one call, and its error if it has one; nothing is cached then.  Every
        caller gets a value of its own, made from JSON by the type *returns*; None is a value too.  If the back end is
        down, or the value does not survive JSON, it is loaded and not stored; all who wait for one load then get the
        same object.

        Raises:
            ValueError: *ttl_seconds* is zero or less.
        """
        _check(ttl_seconds)
        values: Values[T] = values_of(returns)
        found = await self._find(key, values)
        if found is not None:
            return found.value
        if key in self._flights:
            self._operations.count("load", "wait")

        async def run(flight: Flight) -> Packed:
            with self._operations.loading(key):
                value = await load()
            packed = values.pack(value)
            if isinstance(packed, Unfit):
                self._operations.unfit(key, packed.reason)
            elif not flight.outdated:
                flight.storing = True
                await self._store(key, packed, ttl_seconds)
                if flight.outdated:
                    await self._forget(key)
            return packed

        return values.unpack(await self._flights.join(key, run))

    async def close(self) -> None:
        """Cancel the loads that are still under way and close the back end."""
        await self._flights.close()
        await self._backend.close()

    async def _find(self, key: str, values: Values[T]) -> Found[T] | None:
        landed = self._flights.landed
        found = await self._lookup(key, values)
        if found is None and self._flights.landed != landed and key not in self._flights:
            # A load may have ended between the back end's answer and now: its value would be loaded twice.
            found = await self._lookup(key, values)
        return found

    async def _lookup(self, key: str, values: Values[T]) -> Found[T] | None:
        with self._operations.record("get", key) as outcome:
            found = values.find(await self._within_deadline(self._backend.get(key)))
            outcome.name = "miss" if found is None else "hit"
            return found
        return None

    async def _store(self, key: str, value: bytes, ttl_seconds: float) -> None:
        with self._operations.record("set", key):
            await self._within_deadline(self._backend.set(key, value, ttl_seconds))

    async def _forget(self, key: str) -> None:
        with self._operations.record("delete", key):
            await self._within_deadline(self._backend.delete(key))

    async def _within_deadline(self, step: Coroutine[Any, Any, T]) -> T:
        async with asyncio.timeout(self._deadline_seconds):
            return await step


class _Namespace:
    """Puts ``<namespace>:`` before every key."""

    def __init__(self, backend: CacheBackend, namespace: str) -> None:
        self._backend, self._prefix = backend, f"{namespace}:"

    async def get(self, key: str) -> bytes | None:
        return await self._backend.get(self._prefix + key)

    async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        await self._backend.set(self._prefix + key, value, ttl_seconds)

    async def delete(self, key: str) -> None:
        await self._backend.delete(self._prefix + key)

    async def close(self) -> None:
        await self._backend.close()


def open_cache(url: str, *, namespace: str = "") -> Cache:
    """
    Make the cache that *url* (``CACHE_URL``) names, for the function *namespace*; nothing is connected yet.

    Raises:
        SettingError: The scheme or an option of *url* is unknown.
    """
    return Cache(open_backend(url), namespace=namespace)


_active: list[Cache] = []
_of_last_resort: list[Cache] = []


@contextmanager
def activate_cache(cache: Cache) -> Iterator[Cache]:
    """Make *cache* what `current_cache` returns; the caller still closes it."""
    cache.blocking.loop = _running_loop()
    _active.append(cache)
    try:
        yield cache
    finally:
        _active.remove(cache)


def current_cache() -> Cache:
    """Return the cache of this process: the one activated last, else one in memory that lasts as long as it."""
    if _active:
        return _active[-1]
    if not _of_last_resort:
        _of_last_resort.append(open_cache("memory://"))
    return _of_last_resort[0]


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _check(ttl_seconds: float) -> None:
    if not ttl_seconds > 0:
        raise ValueError("ttl_seconds must be more than zero")

"""The function's cache as its handlers hold it: it fails open, and loads each key once at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from ..loops import running_loop
from .backend import CacheBackend, open_backend
from .blocking import BlockingCache
from .budget import Budget
from .entries import Entries
from .flights import Flights, TaskFlight
from .keeping import Keeping, Load, check_times
from .leases import Claim, Right
from .values import Found, Packed, Unfit, Values, values_of

if TYPE_CHECKING:
    from pydantic import TypeAdapter

T = TypeVar("T")

DEADLINE_SECONDS = 0.25
"""The most that one operation of a back end without a deadline of its own may add to a call."""


class Cache:
    """
    Keep results under keys, in *backend*.

    No method raises for an outage: a failing back end is a miss, told in one log line and in the metrics.  Keys get
    *namespace* in front, so that functions which share a server do not share entries.
    """

    def __init__(
        self,
        backend: CacheBackend,
        *,
        namespace: str = "",
        deadline_seconds: float = DEADLINE_SECONDS,
    ) -> None:
        prefix = f"faas:{namespace}:" if namespace else ""
        self._entries = Entries(backend, prefix=prefix, deadline_seconds=deadline_seconds)
        self._operations = self._entries.operations
        self._flights = Flights()
        self.blocking = BlockingCache(self._entries)

    async def get(self, key: str) -> bytes | None:
        """Return the bytes under *key*, or None if there are none."""
        return await self._entries.read(key)

    async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        """
        Keep *value* under *key* for *ttl_seconds*, if it is not too large.

        Raises:
            ValueError: *ttl_seconds* is zero or less.
        """
        check_times(ttl_seconds)
        self._flights.invalidate(key)
        self.blocking.outdate(key)
        await self._entries.budget().spend(self._entries.store(key, value, ttl_seconds))

    async def delete(self, key: str) -> None:
        """
        Forget *key*; the value of a load that is under way does not stay in the cache either.

        That holds for loads of all replicas that share the server, and where it does not answer, as soon as it does.
        """
        flight, budget = self._flights.invalidate(key), self._entries.budget()
        self.blocking.outdate(key)
        if flight is not None and not self._entries.shared:
            # It must not land behind our delete; where there are leases, the server sees to that.
            await budget.spend(flight.stored(budget.left))
        await budget.spend(self._entries.forget(key))

    async def get_or_load(
        self,
        key: str,
        load: Callable[[], Awaitable[T]],
        *,
        ttl_seconds: float,
        returns: type[T] | TypeAdapter[T] | Values[T],
        negative_ttl_seconds: float | None = None,
        stale_if_error_seconds: float = 0.0,
    ) -> T:
        """
        Return the cached value of *key*, calling *load* at most once per key at a time.

        Concurrent callers share one call, and in one process its error if it has one; nothing is cached then.  Every
        caller gets a value of its own, made from JSON by the type *returns*; None is a value too.  If the back end is
        down, or the value does not survive JSON, it is loaded and not stored; all who wait for one load then get the
        same object.  The other times are those of `cached`.

        Raises:
            ValueError: *ttl_seconds* or another time is zero or less.
        """
        # Here and not in objects that only a load needs: most calls are hits.
        times = ttl_seconds, negative_ttl_seconds, stale_if_error_seconds
        check_times(*times)
        values: Values[T] = values_of(returns)
        landed, began = self._flights.landed, time.monotonic()
        found = await self._entries.find(key, values)
        if found is None:
            budget = self._entries.budget(time.monotonic() - began)
            found = await self._find_again(key, values, landed, budget)
            return await self._join(key, load, values, Keeping(*times), budget) if found is None else found.value
        return found.value

    async def close(self) -> None:
        """Cancel the loads that are still under way and close the back end."""
        await self._flights.close()
        await self._entries.close()

    async def _find_again(self, key: str, values: Values[T], landed: int, budget: Budget) -> Found[T] | None:
        """Look once more where something has happened since *landed* loads had ended, or elsewhere."""
        if key in self._flights:
            again = await self._outdated_elsewhere(key, budget)
        else:
            # A load may have ended between the back end's answer and now: its value would be loaded twice.
            again = self._flights.landed != landed
        return await budget.spend(self._entries.find(key, values)) if again else None

    async def _outdated_elsewhere(self, key: str, budget: Budget) -> bool:
        """Let go of a load whose key another replica has invalidated: it is too old for who comes now."""
        flight = self._flights.get(key)
        if flight is None or flight.right is None or not await budget.spend(flight.right.lost()):
            return False
        if self._flights.get(key) is flight:
            self._flights.invalidate(key)
        return True

    async def _join(
        self, key: str, load: Callable[[], Awaitable[T]], values: Values[T], keeping: Keeping, budget: Budget
    ) -> T:
        if key in self._flights:
            self._operations.count("load", "wait")

        async def run(flight: TaskFlight) -> Packed:
            return await self._run(flight, key, load, values, keeping)

        packed = await self._flights.join(key, run, budget)
        if isinstance(packed, Unfit):
            return values.unpack(packed)
        found = values.find(packed)
        # Who joins the load of another type under the same key gets one of his own.
        return await load() if found is None else found.value

    async def _run(
        self, flight: TaskFlight, key: str, load: Callable[[], Awaitable[T]], values: Values[T], keeping: Keeping
    ) -> Packed:
        claim = await self._claim(key, values, flight.budget)
        if claim.value is not None:
            return claim.value
        flight.right = claim.right
        try:
            loaded = await self._load(key, load, values, keeping, flight.budget)
        except BaseException:
            self._entries.owned.start(claim.right.give_up(), "cache lease")
            raise
        # Nobody waits for what comes now; and a value that is stored at once is so before anybody goes on.
        flight.land(loaded.packed)
        await self._keep(flight, key, loaded, claim.right)
        return loaded.packed

    async def _claim(self, key: str, values: Values[T], budget: Budget) -> Claim:
        claimant = self._entries.claimant(key, values)
        while not isinstance(claim := await budget.spend(claimant.look()), Claim):
            # What another replica's load takes is not the cache's time.
            budget.give_back()
            await asyncio.sleep(claim)
        return claim

    async def _load(
        self, key: str, load: Callable[[], Awaitable[T]], values: Values[T], keeping: Keeping, budget: Budget
    ) -> Load:
        try:
            with self._operations.loading(key):
                value = await load()
        except Exception as exc:
            if (absent := keeping.of_error(exc)) is not None:
                return absent
            old = await budget.spend(self._entries.find_stale(key, values)) if keeping.forgives(exc) else None
            if old is None:
                raise
            self._operations.count("load", "stale")
            return keeping.of_stale(old)
        return keeping.of_value(values.pack(value), value)

    async def _keep(self, flight: TaskFlight, key: str, loaded: Load, right: Right) -> None:
        fitting = self._entries.fitting(key, loaded.packed)
        if fitting is None or flight.outdated:
            self._entries.owned.start(right.give_up(unfit=fitting is None), "cache lease")
            return
        flight.storing = True
        storing = right.store(fitting, loaded.ttl_seconds, loaded.stale_seconds)
        if right.waits:
            # In a task that is not the flight's: neither its callers nor the end of the process leave a lease behind.
            if (task := self._entries.owned.start(storing, "cache store")) is not None:
                await asyncio.wait({task})
            return
        await storing
        if flight.outdated:
            await self._entries.forget(key)


def open_cache(url: str, *, namespace: str = "") -> Cache:
    """
    Make the cache that *url* (``CACHE_URL``) names, for the function *namespace*; nothing is connected yet.

    Raises:
        SettingError: The scheme or an option of *url* is unknown.
        SecretMissingError: A secret that it names is not there.
        MissingExtraError: The extra for its scheme is not installed.
    """
    return Cache(open_backend(url), namespace=namespace)


_active: list[Cache] = []
_of_last_resort: list[Cache] = []


@contextmanager
def activate_cache(cache: Cache) -> Iterator[Cache]:
    """Make *cache* what `current_cache` returns; the caller still closes it."""
    cache.blocking.loop = running_loop()
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

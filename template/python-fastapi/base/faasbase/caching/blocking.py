"""The cache for plain ``def`` functions, which run in threads and cannot await."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from .backend import CacheBackend, CacheError
from .flights import Flight, ThreadFlights
from .operations import Operations
from .values import Found, Packed, Unfit, Values

T = TypeVar("T")
R = TypeVar("R")

WAIT_SECONDS = 30.0
"""How long a thread waits for another one's load before it loads by itself."""


class BlockingCache:
    """
    Does from a thread what `Cache` does on the event loop.

    The back end belongs to *loop* once `activate_cache` has set it.  Without one, and on a loop's own thread, only a
    back end that never has to wait (``memory://``) can be asked; another is passed over as if it were down.
    """

    def __init__(self, backend: CacheBackend, operations: Operations, deadline_seconds: float) -> None:
        self._backend, self._operations = backend, operations
        self._deadline_seconds = deadline_seconds
        self._flights = ThreadFlights()
        self.loop: asyncio.AbstractEventLoop | None = None

    def get_or_load(self, key: str, load: Callable[[], T], *, ttl_seconds: float, returns: Values[T]) -> T:
        """Return the cached value of *key*, calling *load* at most once per key at a time among threads."""
        found = self._find(key, returns)
        if found is not None:
            return found.value
        if key in self._flights:
            self._operations.count("load", "wait")

        def run(flight: Flight) -> Packed:
            packed = self._load(key, load, returns)
            if isinstance(packed, Unfit):
                self._operations.unfit(key, packed.reason)
            elif not flight.outdated:
                self._store(key, packed, ttl_seconds)
                if flight.outdated:
                    self._forget(key)
            return packed

        return returns.unpack(self._flights.join(key, run, wait_seconds=WAIT_SECONDS))

    def delete(self, key: str) -> None:
        """Forget *key*; the value of a load that is under way does not stay in the cache."""
        self._flights.invalidate(key)
        self._forget(key)

    def outdate(self, key: str) -> None:
        """Keep the value of a load that is under way out of the cache."""
        self._flights.invalidate(key)

    def _find(self, key: str, values: Values[T]) -> Found[T] | None:
        with self._operations.record("get", key) as outcome:
            found = values.find(self._wait_for(self._backend.get(key)))
            outcome.name = "miss" if found is None else "hit"
            return found
        return None

    def _load(self, key: str, load: Callable[[], T], values: Values[T]) -> Packed:
        with self._operations.loading(key):
            value = load()
        return values.pack(value)

    def _store(self, key: str, encoded: bytes, ttl_seconds: float) -> None:
        with self._operations.record("set", key):
            self._wait_for(self._backend.set(key, encoded, ttl_seconds))

    def _forget(self, key: str) -> None:
        with self._operations.record("delete", key):
            self._wait_for(self._backend.delete(key))

    def _wait_for(self, step: Coroutine[Any, Any, R]) -> R:
        if self.loop is None or not self.loop.is_running() or _on_a_loop():
            return _finish_now(step)
        future = asyncio.run_coroutine_threadsafe(step, self.loop)
        try:
            return future.result(self._deadline_seconds)
        except CancelledError as exc:
            raise CacheError("the event loop ended") from exc
        finally:
            future.cancel()


def _on_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _finish_now(step: Coroutine[Any, Any, R]) -> R:
    """Run *step* without an event loop, which works as long as it does not wait for anything."""
    try:
        step.send(None)
    except StopIteration as done:
        result: R = done.value
        return result
    finally:
        step.close()
    raise CacheError("this cache can be asked only from an async function or a handler's thread")

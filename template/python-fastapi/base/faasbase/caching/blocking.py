"""The cache for plain ``def`` functions, which run in threads and cannot await."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from .backend import CacheError
from .entries import Entries
from .flights import Flight, ThreadFlights
from .keeping import Keeping, Load
from .leases import NO_RIGHT, WAIT_SECONDS, Claim, Right
from .values import Packed, Values

T = TypeVar("T")
R = TypeVar("R")


class BlockingCache:
    """
    Does from a thread what `Cache` does on the event loop.

    The entries belong to *loop* once `activate_cache` has set it.  Without one, and on a loop's own thread, only a
    back end that never has to wait (``memory://``) can be asked; another is passed over as if it were down.
    """

    def __init__(self, entries: Entries) -> None:
        self._entries, self._operations = entries, entries.operations
        self._flights = ThreadFlights()
        self.loop: asyncio.AbstractEventLoop | None = None

    def get_or_load(
        self,
        key: str,
        load: Callable[[], T],
        *,
        ttl_seconds: float,
        returns: Values[T],
        negative_ttl_seconds: float | None = None,
        stale_if_error_seconds: float = 0.0,
    ) -> T:
        """Return the cached value of *key*, calling *load* at most once per key at a time among threads."""
        keeping = Keeping(
            ttl_seconds=ttl_seconds,
            negative_ttl_seconds=negative_ttl_seconds,
            stale_if_error_seconds=stale_if_error_seconds,
        )
        found = self._ask("get", key, self._entries.find(key, returns))
        if found is None and self._outdated_elsewhere(key):
            found = self._ask("get", key, self._entries.find(key, returns))
        if found is not None:
            return found.value
        if key in self._flights:
            self._operations.count("load", "wait")

        def run(flight: Flight) -> Packed:
            return self._run(flight, key, load, returns, keeping)

        return returns.unpack(self._flights.join(key, run, wait_seconds=WAIT_SECONDS))

    def delete(self, key: str) -> None:
        """Forget *key*; the value of a load that is under way does not stay in the cache."""
        self._flights.invalidate(key)
        self._ask("delete", key, self._entries.forget(key))

    def outdate(self, key: str) -> None:
        """Keep the value of a load that is under way out of the cache."""
        self._flights.invalidate(key)

    def _outdated_elsewhere(self, key: str) -> bool:
        """As for `Cache`."""
        flight = self._flights.get(key)
        if flight is None or flight.right is None or not self._ask("check", key, flight.right.lost()):
            return False
        self._flights.invalidate(key, flight)
        return True

    def _run(self, flight: Flight, key: str, load: Callable[[], T], values: Values[T], keeping: Keeping) -> Packed:
        patience = self._entries.deadline_seconds + (WAIT_SECONDS if self._entries.shared else 0.0)
        claim = self._ask("claim", key, self._entries.claim(key, values), patience) or Claim(None, NO_RIGHT)
        if claim.value is not None:
            return claim.value
        flight.right = claim.right
        try:
            loaded = self._load(key, load, values, keeping)
        except BaseException:
            self._later(claim.right, claim.right.give_up())
            raise
        self._keep(flight, key, loaded, claim.right)
        return loaded.packed

    def _load(self, key: str, load: Callable[[], T], values: Values[T], keeping: Keeping) -> Load:
        try:
            with self._operations.loading(key):
                value = load()
        except Exception as exc:
            if (absent := keeping.of_error(exc)) is not None:
                return absent
            if not keeping.forgives(exc):
                raise
            old = self._ask("get_stale", key, self._entries.find_stale(key, values))
            if old is None:
                raise
            self._operations.count("load", "stale")
            return keeping.of_stale(old)
        return keeping.of_value(values.pack(value), value)

    def _keep(self, flight: Flight, key: str, loaded: Load, right: Right) -> None:
        fitting = self._entries.fitting(key, loaded.packed)
        if fitting is None or flight.outdated:
            self._later(right, right.give_up(unfit=fitting is None))
            return
        self._later(right, right.store(fitting, loaded.ttl_seconds, loaded.stale_seconds))
        if flight.outdated and not right.waits:
            self._ask("delete", key, self._entries.forget(key))

    def _later(self, right: Right, work: Coroutine[Any, Any, None]) -> None:
        """Do *work* now where that takes no time or has to be over, else on the loop while the thread goes on."""
        if right is NO_RIGHT:
            work.close()
        elif right.waits and self.loop is not None and self.loop.is_running():
            self.loop.call_soon_threadsafe(self._entries.owned.start, work, "cache store")
        else:
            self._ask("set", "", work)

    def _ask(self, operation: str, key: str, step: Coroutine[Any, Any, R], patience: float | None = None) -> R | None:
        """Return the result of *step*, or None where it cannot be had; the steps themselves swallow other errors."""
        if self.loop is not None and self.loop.is_running() and not _on_a_loop():
            return self._ask_loop(operation, key, step, patience or self._entries.deadline_seconds)
        if self._entries.never_waits:
            return _finish_now(step)
        step.close()
        with self._operations.record(operation, key):
            raise CacheError("this cache can be asked only from an async function or a handler's thread")
        return None

    def _ask_loop(self, operation: str, key: str, step: Coroutine[Any, Any, R], patience: float) -> R | None:
        assert self.loop is not None  # noqa: S101 - for the type checker
        future = asyncio.run_coroutine_threadsafe(step, self.loop)
        try:
            return future.result(patience)
        except (TimeoutError, CancelledError) as exc:
            with self._operations.record(operation, key):
                raise CacheError("the event loop is blocked, or has ended") from exc
            return None
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
    raise CacheError("a back end that never waits has waited")

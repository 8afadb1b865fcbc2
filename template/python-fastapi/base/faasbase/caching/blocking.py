"""The cache for plain ``def`` functions, which run in threads and cannot await."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from ..loops import running_loop
from .backend import CacheError, NotDoneError
from .budget import LATE_SECONDS, Budget, ending
from .entries import Entries
from .flights import Flight, ThreadFlights
from .keeping import Keeping, Load
from .leases import NO_RIGHT, WAIT_SECONDS, Claim, Claimant, NoRight, Right
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
        keeping = Keeping(ttl_seconds, negative_ttl_seconds, stale_if_error_seconds)
        budget = self._entries.budget()
        found = self._ask("get", key, self._entries.find(key, returns), budget)
        if found is None and self._outdated_elsewhere(key, budget):
            found = self._ask("get", key, self._entries.find(key, returns), budget)
        if found is not None:
            return found.value
        if key in self._flights:
            self._operations.count("load", "wait")

        def run(flight: Flight) -> Packed:
            return self._run(flight, key, load, returns, keeping)

        return returns.unpack(self._flights.join(key, run, budget, wait_seconds=WAIT_SECONDS))

    def delete(self, key: str) -> None:
        """Forget *key*; the value of a load that is under way does not stay in the cache."""
        self._flights.invalidate(key)
        self._ask("delete", key, self._entries.forget(key), self._entries.budget(), lasting=True)

    def outdate(self, key: str) -> None:
        """Keep the value of a load that is under way out of the cache."""
        self._flights.invalidate(key)

    def _outdated_elsewhere(self, key: str, budget: Budget) -> bool:
        """As for `Cache`."""
        flight = self._flights.get(key)
        if flight is None or flight.right is None or not self._ask("check", key, flight.right.lost(), budget):
            return False
        self._flights.invalidate(key, flight)
        return True

    def _run(self, flight: Flight, key: str, load: Callable[[], T], values: Values[T], keeping: Keeping) -> Packed:
        claim = self._claim(key, values, flight.budget)
        if claim.value is not None:
            return claim.value
        flight.right = claim.right
        try:
            loaded = self._load(key, load, values, keeping, flight.budget)
        except BaseException:
            self._later(claim.right, claim.right.give_up(), flight.budget)
            raise
        self._keep(flight, key, loaded, claim.right)
        return loaded.packed

    def _claim(self, key: str, values: Values[T], budget: Budget) -> Claim:
        claimant = self._entries.claimant(key, values)
        while not isinstance(claim := self._ask("claim", key, claimant.look(), budget), Claim):
            if claim is None:
                # It may have been answered just when this thread gave up.
                self._later(claimant, claimant.give_up(), budget)
                return Claim(None, NO_RIGHT)
            # As for `Cache`.
            budget.give_back()
            time.sleep(claim)
        return claim

    def _load(self, key: str, load: Callable[[], T], values: Values[T], keeping: Keeping, budget: Budget) -> Load:
        try:
            with self._operations.loading(key):
                value = load()
        except Exception as exc:
            if (absent := keeping.of_error(exc)) is not None:
                return absent
            if not keeping.forgives(exc):
                raise
            old = self._ask("get_stale", key, self._entries.find_stale(key, values), budget)
            if old is None:
                raise
            self._operations.count("load", "stale")
            return keeping.of_stale(old)
        return keeping.of_value(values.pack(value), value)

    def _keep(self, flight: Flight, key: str, loaded: Load, right: Right) -> None:
        fitting, budget = self._entries.fitting(key, loaded.packed), flight.budget
        if fitting is None or flight.outdated:
            self._later(right, right.give_up(unfit=fitting is None), budget)
            return
        self._later(right, right.store(fitting, loaded.ttl_seconds, loaded.stale_seconds), budget)
        if flight.outdated and not right.waits:
            self._ask("delete", key, self._entries.forget(key), budget, lasting=True)

    def _later(self, right: Right | Claimant, work: Coroutine[Any, Any, None], budget: Budget) -> None:
        """Do *work* now where that takes no time or has to be over, else on the loop while the thread goes on."""
        if isinstance(right, NoRight):
            work.close()
        elif right.waits and self.loop is not None and self.loop.is_running():
            self.loop.call_soon_threadsafe(self._entries.owned.start, work, "cache store")
        else:
            self._ask("set", "", work, budget)

    def _ask(
        self, operation: str, key: str, step: Coroutine[Any, Any, R], budget: Budget, *, lasting: bool = False
    ) -> R | None:
        """
        Return the result of *step*, or None where it cannot be had; the steps themselves swallow other errors.

        A *lasting* one is done whether it can be waited for or not.
        """
        if self._entries.never_waits:
            return _finish_now(step)
        if self.loop is not None and self.loop.is_running() and running_loop() is None:
            if budget.left > 0 or lasting:
                return self._ask_loop(self.loop, operation, key, step, budget, lasting)
            refusal: CacheError = NotDoneError("the call has no time left for the cache")
        else:
            refusal = CacheError("this cache can be asked only from an async function or a handler's thread")
        step.close()
        with self._operations.record(operation, key):
            raise refusal
        return None

    def _ask_loop(
        self,
        loop: asyncio.AbstractEventLoop,
        operation: str,
        key: str,
        step: Coroutine[Any, Any, R],
        budget: Budget,
        lasting: bool,
    ) -> R | None:
        with budget.step() as until:
            future = asyncio.run_coroutine_threadsafe(step if lasting else ending(until, step), loop)
            try:
                # The step itself is over in time, and knows better why.
                return future.result(until - time.monotonic() + LATE_SECONDS)
            except (TimeoutError, CancelledError) as exc:
                with self._operations.record(operation, key):
                    raise CacheError("the event loop is blocked, or has ended") from exc
                return None
            finally:
                if not lasting:
                    future.cancel()


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

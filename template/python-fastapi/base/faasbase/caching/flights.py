"""One load at a time per key: who comes second waits for the first one's result."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from .budget import Budget
from .leases import Right
from .values import Packed

Load = Callable[["TaskFlight"], Coroutine[Any, Any, Packed]]
ThreadLoad = Callable[["Flight"], Packed]


@dataclass(eq=False)
class Flight:
    """A load that is under way."""

    budget: Budget
    """What its steps before and after the load may yet take."""
    outdated: bool = False
    """True once its key was invalidated: those who wait still get its value, but nobody after them."""
    right: "Right | None" = None
    """What decides whether the value may be stored, once there is a value to be loaded."""
    storing: bool = False
    """True once the value is on its way into the cache."""


@dataclass(eq=False)
class TaskFlight(Flight):
    """A load of an event loop's, in a task of its own."""

    task: "asyncio.Task[Packed]" = field(init=False)
    result: "asyncio.Future[Packed]" = field(init=False)
    waiters: int = 0

    def land(self, packed: Packed) -> None:
        """Give *packed* to those who wait, while the task goes on: storing is nothing that they need."""
        if not self.result.done():
            self.result.set_result(packed)

    async def stored(self, timeout_seconds: float) -> None:
        """Wait until a value on its way into the cache has arrived there."""
        if self.storing and not self.task.done():
            await asyncio.wait({self.task}, timeout=timeout_seconds)


@dataclass(eq=False)
class _ThreadFlight(Flight):
    future: "Future[Packed]" = field(default_factory=Future)


class Flights:
    """
    The loads of one event loop.

    A load runs in a task of its own, so that a caller who is cancelled does not fail those who wait with it.  When the
    last of them is gone the load is cancelled too; `close` cancels and awaits whatever is left.
    """

    def __init__(self) -> None:
        self._by_key: dict[str, TaskFlight] = {}
        self._tasks: set[asyncio.Task[Packed]] = set()
        self.landed = 0
        """How many loads have ended: tells whether one may have ended while its caller was looking elsewhere."""

    def __contains__(self, key: str) -> bool:
        return key in self._by_key

    def get(self, key: str) -> TaskFlight | None:
        """Return the flight that a caller of *key* would join."""
        return self._by_key.get(key)

    async def join(self, key: str, load: Load, budget: Budget) -> Packed:
        """Return the result of the flight for *key*, starting one with *load* if there is none that can be joined."""
        if _outlasts(self._by_key.get(key), budget):
            self.invalidate(key)
        flight = self._by_key.get(key) or self._start(key, load, budget)
        flight.budget.limit(budget)
        flight.waiters += 1
        try:
            # Unlike awaiting the task itself, this neither cancels it nor mixes up its cancellation with ours.
            await asyncio.wait({flight.result})
        finally:
            flight.waiters -= 1
            if not flight.waiters and not flight.result.done():
                self._leave(key, flight)
                flight.task.cancel()
        if flight.result.cancelled():
            raise RuntimeError("the cache was closed while the value was being loaded")
        return flight.result.result()

    def invalidate(self, key: str) -> TaskFlight | None:
        """Let later callers start anew and keep the running load's value out of the cache; return that flight."""
        flight = self._by_key.pop(key, None)
        if flight is not None:
            flight.outdated = True
        return flight

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, key: str, load: Load, budget: Budget) -> TaskFlight:
        flight = TaskFlight(budget)
        flight.result = asyncio.get_running_loop().create_future()
        flight.task = asyncio.create_task(load(flight), name=f"cache load {key}")
        self._by_key[key] = flight
        self._tasks.add(flight.task)
        flight.task.add_done_callback(lambda task: self._land(key, flight, task))
        return flight

    def _land(self, key: str, flight: TaskFlight, task: "asyncio.Task[Packed]") -> None:
        self.landed += 1
        self._tasks.discard(task)
        self._leave(key, flight)
        if flight.result.done():
            if not task.cancelled():
                # Marks the error as seen: everybody has his value, and what storing it came to is told elsewhere.
                task.exception()
        elif task.cancelled():
            flight.result.cancel()
        elif error := task.exception():
            flight.result.set_exception(error)
            # The same where every caller has gone: there is nobody left to raise it to.
            flight.result.exception()
        else:
            flight.result.set_result(task.result())

    def _leave(self, key: str, flight: TaskFlight) -> None:
        if self._by_key.get(key) is flight:
            del self._by_key[key]


class ThreadFlights:
    """The loads of threads: the first to come loads in its own thread, the others wait for it."""

    def __init__(self) -> None:
        self._by_key: dict[str, _ThreadFlight] = {}
        self._lock = Lock()

    def __contains__(self, key: str) -> bool:
        return key in self._by_key

    def get(self, key: str) -> Flight | None:
        """Return the flight that a caller of *key* would wait for."""
        return self._by_key.get(key)

    def join(self, key: str, load: ThreadLoad, budget: Budget, *, wait_seconds: float) -> Packed:
        """Return the result of the flight for *key*; after *wait_seconds* behind another thread, load it here."""
        with self._lock:
            running = self._by_key.get(key)
            if _outlasts(running, budget):
                self._let_go(key)
                running = None
            flight = running or self._by_key.setdefault(key, _ThreadFlight(budget))
            flight.budget.limit(budget)
        if running is None:
            return self._lead(key, flight, load)
        try:
            return running.future.result(wait_seconds)
        except TimeoutError:
            # A load may fail with a TimeoutError of its own, and then that is the result.
            if running.future.done():
                raise
            return load(Flight(budget))

    def invalidate(self, key: str, only: Flight | None = None) -> None:
        """Let later callers start anew and keep the running load's value out of the cache; of this flight *only*."""
        with self._lock:
            if only in (None, self._by_key.get(key)):
                self._let_go(key)

    def _let_go(self, key: str) -> None:
        flight = self._by_key.pop(key, None)
        if flight is not None:
            flight.outdated = True

    def _lead(self, key: str, flight: _ThreadFlight, load: ThreadLoad) -> Packed:
        try:
            result = load(flight)
        except BaseException as exc:
            flight.future.set_exception(exc)
            raise
        else:
            flight.future.set_result(result)
            return result
        finally:
            with self._lock:
                if self._by_key.get(key) is flight:
                    del self._by_key[key]


def _outlasts(flight: Flight | None, budget: Budget) -> bool:
    """Tell whether a caller with *budget* must not wait for *flight*, which is asking the back end just now."""
    return flight is not None and flight.budget.outlasts(budget)

"""The time that the cache may add to one call, all its steps together."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from .backend import NotDoneError

T = TypeVar("T")

LATE_SECONDS = 0.01
"""By how much an event loop that is not blocked may be late."""

_FOR_EVER = float("inf")
# Not a parameter: the protocol of back ends, which users may implement, has none.
_until: ContextVar[float] = ContextVar("faas_cache_until", default=_FOR_EVER)


class Budget:
    """
    The seconds that the cache may add to one call: what its steps take counts, and the load between them does not.

    No step takes longer than *step_seconds*.  A load that several calls wait for spends the budget of the first, but
    no more than each of the others has left.
    """

    __slots__ = ("_most", "_spent", "_step_seconds", "_step_until", "_took")

    def __init__(self, seconds: float, step_seconds: float, spent_seconds: float = 0.0) -> None:
        self._most, self._step_seconds, self._spent = seconds, step_seconds, spent_seconds
        self._step_until = self._took = 0.0

    @property
    def left(self) -> float:
        return self._most - self._spent

    async def spend(self, step: Coroutine[Any, Any, T]) -> T:
        """Return the result of *step*, which finds by `seconds_left` that its time is over."""
        with self.step() as until:
            return await ending(until, step)

    @contextmanager
    def step(self) -> Iterator[float]:
        """Count what the body takes, and tell it when it has to be over, by `time.monotonic`."""
        began = time.monotonic()
        self._step_until = until = began + min(self.left, self._step_seconds)
        try:
            yield until
        finally:
            self._step_until = 0.0
            self._took = time.monotonic() - began
            self._spent += self._took

    def give_back(self) -> None:
        """Do not count the last step, since it went on beside a load."""
        self._spent -= self._took
        self._took = 0.0

    def limit(self, other: Budget) -> None:
        """Leave no more than *other* has left, whose call waits for the steps of this one from now on."""
        self._most = min(self._most, self._spent + other.left)

    def outlasts(self, other: Budget) -> bool:
        """Tell whether the step under way may take longer than *other*, whose call would wait for it, has left."""
        return self._step_until > time.monotonic() + other.left + LATE_SECONDS


async def ending(until: float, step: Coroutine[Any, Any, T]) -> T:
    """Return the result of *step*, in which `seconds_left` counts down to *until*."""
    token = _until.set(until)
    try:
        return await step
    finally:
        _until.reset(token)


def seconds_left(most: float) -> float:
    """
    Return how long the step under way may take from now on, *most* at most.

    Raises:
        NotDoneError: The call has no time left for it.
    """
    until = _until.get()
    if until == _FOR_EVER:
        return most
    left = until - time.monotonic()
    if left <= 0:
        raise NotDoneError("the call has no time left for the cache")
    return min(most, left)

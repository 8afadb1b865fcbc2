"""The entries of one function as its loads see them: names, first level, size limits, and no errors."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from ..owned import OwnedTasks
from .backend import CacheBackend, NotDoneError, SharedBackend
from .budget import Budget, seconds_left
from .first_level import FirstLevel
from .leases import Claim, Claimant
from .operations import Operations
from .options import CacheOptions
from .values import Found, Packed, Unfit, Values

T = TypeVar("T")

JITTER = 0.1
"""
By how much a loaded value may be kept shorter than asked, so that those loaded together do not end together.

Never longer: a time to live is what the function promises its callers.
"""


class Entries:
    """What the back end holds under *prefix*; every method is one step that costs its deadline at most."""

    def __init__(self, backend: CacheBackend, *, prefix: str, deadline_seconds: float) -> None:
        shared = backend if isinstance(backend, SharedBackend) else None
        self._backend, self._shared, self._prefix = backend, shared, prefix
        self._deadline_seconds = deadline_seconds
        self._bounded = shared is not None or getattr(backend, "never_waits", False)
        self._options = shared.options if shared else CacheOptions(max_value_bytes=2**63)
        self._first = FirstLevel(self._options.first_level_ttl)
        self.operations = Operations(tells=shared is not None)
        self.owned = OwnedTasks()

    @property
    def never_waits(self) -> bool:
        """Whether no method waits for anything, so that no event loop is needed."""
        return bool(getattr(self._backend, "never_waits", False))

    @property
    def shared(self) -> bool:
        """Whether other replicas ask the same back end."""
        return self._shared is not None

    @property
    def deadline_seconds(self) -> float:
        return self._options.deadline if self.shared else self._deadline_seconds

    def budget(self, spent_seconds: float = 0.0) -> Budget:
        """Return what is left for a call that has spent so much already."""
        step_seconds = self._options.step if self._shared else self._deadline_seconds
        return Budget(self.deadline_seconds, step_seconds, spent_seconds)

    async def read(self, key: str) -> bytes | None:
        """Return the bytes under *key*, or None."""
        with self.operations.record("get", key) as outcome:
            step = self._backend.get(self._prefix + key)
            value = await (step if self._bounded else self._in_time(step))
            outcome.name = "miss" if value is None else "hit"
            outcome.read_bytes = len(value or b"")
            return value
        return None

    async def find(self, key: str, values: Values[T]) -> Found[T] | None:
        """Return the value under *key*, or None where there is none that *values* can read."""
        name = self._prefix + key
        if (near := self._first.get(name)) is not None and (found := values.find(near)) is not None:
            self.operations.count("get", "first_level")
            return found
        asked = self._first.asked()
        with self.operations.record("get", key) as outcome:
            step = self._backend.get(name)
            value = await (step if self._bounded else self._in_time(step))
            found = values.find(value)
            outcome.name = "hit" if found else "miss" if value is None else "unreadable"
            outcome.read_bytes = len(value or b"")
            if value is not None and found is not None:
                self._first.keep(name, value, self._options.first_level_ttl, asked)
            return found
        return None

    async def find_stale(self, key: str, values: Values[T]) -> bytes | None:
        """Return what was kept for the case that *key* cannot be loaded."""
        with self.operations.record("get_stale", key) as outcome:
            value = await self._stale(key)
            outcome.name = "miss" if values.find(value) is None else "hit"
            return value if outcome.name == "hit" else None
        return None

    async def store(self, key: str, value: bytes, ttl_seconds: float) -> None:
        """Keep *value* whoever loads another one, if it is not too large."""
        name = self._prefix + key
        self._first.forget(name)
        if len(value) > self._options.max_value_bytes:
            self.operations.too_large(key, self._options.max_value_bytes)
            # What was there before is not the value any more.
            await self.forget(key)
            return
        with self.operations.record("set", key) as outcome:
            await self._in_time(self._backend.set(name, value, ttl_seconds))
            outcome.written_bytes = len(value)

    async def store_stale(self, key: str, value: bytes, ttl_seconds: float) -> None:
        with self.operations.record("set", key):
            await self._in_time(self._backend.set(_stale_name(self._prefix + key), value, ttl_seconds))

    async def forget(self, key: str) -> None:
        """Forget *key*; where replicas share it, no load that began before stores its value."""
        name = self._prefix + key
        self._first.forget(name)
        with self.operations.record("delete", key):
            await self._in_time(self._backend.delete(name))
            if not self._shared:
                await self._in_time(self._backend.delete(_stale_name(name)))

    def claimant(self, key: str, values: Values[Any]) -> Claimant | Unshared:
        """Return the way to the right to store what is loaded now, or to what another replica has loaded meanwhile."""
        if self._shared is None:
            return Unshared(self, key)
        name = self._prefix + key
        return Claimant(self._shared, self.operations, name, lambda value: values.find(value) is not None, key)

    def fitting(self, key: str, packed: Packed) -> bytes | None:
        """Return *packed* if it can be stored, else tell why not."""
        if isinstance(packed, Unfit):
            self.operations.unfit(key, packed.reason)
        elif len(packed) > self._options.max_value_bytes:
            self.operations.too_large(key, self._options.max_value_bytes)
        else:
            return packed
        return None

    async def close(self) -> None:
        """Close the back end, after what is on its way there."""
        await self.owned.close()
        self._first.clear()
        await self._backend.close()

    async def _stale(self, key: str) -> bytes | None:
        name = self._prefix + key
        if self._shared is not None:
            return await self._shared.get_stale(name)
        return await self._in_time(self._backend.get(_stale_name(name)))

    async def _in_time(self, step: Coroutine[Any, Any, T]) -> T:
        if self._bounded:
            return await step
        try:
            seconds = seconds_left(self._deadline_seconds)
        except NotDoneError:
            step.close()
            raise
        async with asyncio.timeout(seconds):
            return await step


class Unshared:
    """The right to store where no other replica asks: always there."""

    waits = False

    def __init__(self, entries: Entries, key: str) -> None:
        self._entries, self._key = entries, key

    async def look(self) -> Claim | float:
        return Claim(None, self)

    async def store(self, value: bytes, ttl_seconds: float, stale_seconds: float) -> None:
        await self._entries.store(self._key, value, ttl_seconds)
        if stale_seconds:
            await self._entries.store_stale(self._key, value, stale_seconds)

    async def give_up(self, *, unfit: bool = False) -> None:
        pass

    async def lost(self) -> bool:
        return False


def jittered(ttl_seconds: float, rng: Callable[[], float] = random.random) -> float:
    """Return *ttl_seconds* or up to a tenth less."""
    return ttl_seconds * (1 - JITTER * rng())


def _stale_name(name: str) -> str:
    return f"stale:{name}"

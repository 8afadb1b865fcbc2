"""
One load at a time per key among replicas: who may load a value, and who may store it.

Whoever holds the lease of a key loads, and renews it while it does.  The others look now and then for the value, and
take over when the lease ends without one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from secrets import token_hex
from typing import Protocol

from ..resilience import look_pause
from .backend import SharedBackend
from .operations import Operations

WAIT_SECONDS = 30.0
"""How long a caller waits for another replica's load before it loads by itself."""
UNFIT = b"?"
"""Stored where a value cannot be: no JSON, so that nobody takes it for one, and nobody waits for the next."""

_UNFIT_SECONDS = 10.0


class Right(Protocol):
    """The right to store what is loaded now."""

    async def store(self, value: bytes, ttl_seconds: float, stale_seconds: float) -> None:
        """Store *value*, unless the right has been lost."""

    async def give_up(self, *, unfit: bool = False) -> None:
        """Leave the key to the others; *unfit* tells them that no value of this kind can be stored."""

    async def lost(self) -> bool:
        """Tell whether what is being loaded was invalidated meanwhile, by another replica for instance."""

    waits: bool
    """Whether storing takes so long that the one who has loaded should not wait for it."""


@dataclass(frozen=True, slots=True)
class Claim:
    """Either the value that another replica has stored meanwhile, or what to do with the one that is loaded."""

    value: bytes | None
    right: Right


class NoRight:
    """What is loaded is for its caller only."""

    waits = False

    async def store(self, value: bytes, ttl_seconds: float, stale_seconds: float) -> None:
        pass

    async def give_up(self, *, unfit: bool = False) -> None:
        pass

    async def lost(self) -> bool:
        return False


NO_RIGHT = NoRight()


class Leaseless(NoRight):
    """As `NO_RIGHT`, of a load without a lease that would tell of invalidations: it ends with the reason for that."""

    def __init__(self, backend: SharedBackend, operations: Operations, key: str, shown: str) -> None:
        self._backend, self._operations, self._key, self._shown = backend, operations, key, shown

    async def lost(self) -> bool:
        with self._operations.record("check", self._shown) as outcome:
            # The server answers again, or lets values of this key be stored.
            lost = await self._backend.get_current(self._key) != UNFIT
            outcome.name = "lost" if lost else "ok"
            return lost
        return False


class Lease:
    """A key's lease, held and renewed from now until it is used or given up."""

    waits = True

    def __init__(self, backend: SharedBackend, operations: Operations, key: str, token: str, shown: str) -> None:
        self._backend, self._operations = backend, operations
        self._key, self._token, self._shown = key, token, shown
        self._renewal = asyncio.get_running_loop().create_task(self._renew(), name="cache lease")

    async def store(self, value: bytes, ttl_seconds: float, stale_seconds: float) -> None:
        self._renewal.cancel()
        stored: bool | None = None
        with self._operations.record("set", self._shown) as outcome:
            stored = await self._backend.fulfil(self._key, self._token, value, ttl_seconds, stale_seconds)
            outcome.name = "ok" if stored else "lost"
            outcome.written_bytes = len(value) if stored else 0
        if stored is None:
            await self._release()

    async def give_up(self, *, unfit: bool = False) -> None:
        self._renewal.cancel()
        if unfit:
            await self.store(UNFIT, _UNFIT_SECONDS, 0)
        else:
            await self._release()

    async def lost(self) -> bool:
        held = True
        with self._operations.record("check", self._shown) as outcome:
            held = await self._backend.holds(self._key, self._token)
            outcome.name = "ok" if held else "lost"
        return not held

    async def _release(self) -> None:
        with self._operations.record("release", self._shown):
            await self._backend.release(self._key, self._token)

    async def _renew(self) -> None:
        mine = True
        while mine:
            await asyncio.sleep(self._backend.options.lease / 3)
            with self._operations.record("renew", self._shown) as outcome:
                mine = await self._backend.renew(self._key, self._token)
                outcome.name = "ok" if mine else "lost"


class Claimant:
    """One caller's way to the right to store what is under *key*; *shown* is the key as traces may know it."""

    waits = True

    def __init__(
        self, backend: SharedBackend, operations: Operations, key: str, usable: Callable[[bytes], bool], shown: str
    ) -> None:
        self._backend, self._operations = backend, operations
        self._key, self._usable, self._shown = key, usable, shown
        self._token, self._looks = token_hex(8), 0
        self._until = time.monotonic() + WAIT_SECONDS
        self._lease: Lease | None = None

    async def look(self) -> Claim | float:
        """
        Return the right, or the value where another replica has stored a usable one.

        While another replica loads, return the seconds to wait until the next look.  An owner that does not end within
        `WAIT_SECONDS` is not waited for, nor is anybody while the server fails.
        """
        reply = await self._ask(anew=False)
        if isinstance(reply, bytes) and reply != UNFIT:
            if self._usable(reply):
                return Claim(reply, NO_RIGHT)
            # Another version of the function wrote it.
            reply = await self._ask(anew=True)
        if reply is None:
            self._lease = Lease(self._backend, self._operations, self._key, self._token, self._shown)
            return Claim(None, self._lease)
        if not isinstance(reply, float):
            return Claim(None, Leaseless(self._backend, self._operations, self._key, self._shown))
        if time.monotonic() >= self._until:
            self._operations.count("lease", "overdue")
            return Claim(None, NO_RIGHT)
        if not self._looks:
            self._operations.count("lease", "wait")
        self._looks += 1
        return min(reply, look_pause(self._looks - 1))

    async def give_up(self) -> None:
        """End a lease that nobody was told of."""
        if self._lease is not None:
            await self._lease.give_up()

    async def _ask(self, *, anew: bool) -> bytes | float | _Failed | None:
        with self._operations.record("claim", self._shown) as outcome:
            reply = await self._backend.claim(self._key, self._token, anew=anew)
            outcome.name = "hit" if isinstance(reply, bytes) else "taken" if reply is not None else "ok"
            return reply
        return _FAILED


class _Failed:
    """The server could not be asked."""


_FAILED = _Failed()

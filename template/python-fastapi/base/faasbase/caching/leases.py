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


class Leases:
    """Hands out leases of *backend*'s keys."""

    def __init__(
        self,
        backend: SharedBackend,
        operations: Operations,
        *,
        wait_seconds: float = WAIT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend, self._operations = backend, operations
        self._wait_seconds, self._clock = wait_seconds, clock

    async def claim(self, key: str, usable: Callable[[bytes], bool], *, shown: str) -> Claim:
        """
        Return the right to store, or the value as soon as another replica has stored a *usable* one.

        An owner that does not end within `WAIT_SECONDS` is not waited for, nor is anybody while the server fails.
        *shown* is the key as traces may know it.
        """
        token, until = token_hex(8), self._clock() + self._wait_seconds
        looks = 0
        anew = False
        while True:
            reply = await self._ask(key, token, shown, anew=anew)
            if reply == UNFIT or isinstance(reply, _Failed):
                return Claim(None, NO_RIGHT)
            if reply is None:
                return Claim(None, Lease(self._backend, self._operations, key, token, shown))
            if isinstance(reply, bytes):
                if usable(reply):
                    return Claim(reply, NO_RIGHT)
                # Another version of the function wrote it.
                anew = True
                continue
            if self._clock() >= until:
                self._operations.count("lease", "overdue")
                return Claim(None, NO_RIGHT)
            if not looks:
                self._operations.count("lease", "wait")
            anew = False
            await asyncio.sleep(min(reply, look_pause(looks)))
            looks += 1

    async def _ask(self, key: str, token: str, shown: str, *, anew: bool) -> bytes | float | _Failed | None:
        with self._operations.record("claim", shown) as outcome:
            reply = await self._backend.claim(key, token, anew=anew)
            outcome.name = "hit" if isinstance(reply, bytes) else "taken" if reply is not None else "ok"
            return reply
        return _FAILED


class _Failed:
    """The server could not be asked."""


_FAILED = _Failed()

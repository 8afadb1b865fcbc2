"""The cache that replicas share: entries and leases on a Redis server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from ..connections import ConnectionsError, RedisConnections, Script, redis_connections
from ..durations import milliseconds
from ..redis_place import place_of
from .backend import CacheError, NotDoneError
from .budget import seconds_left
from .debts import Debts
from .guard import Guard
from .options import NAMES, CacheOptions, options_of
from .scripts import CLAIM, FULFIL, OURS, PUT, RELEASE, RENEW, names_of

_SETTLED_AT_ONCE = 256


class RedisCache:
    """
    Keep values on the server that *connections* ask.

    Each step ends within half of the deadline, and those before a load also within the call's `Budget`.  A server that
    does not answer is left alone, at no cost, until a try in the background finds it well again.  What was invalidated
    meanwhile is deleted there before it is used.
    """

    def __init__(self, connections: RedisConnections, options: CacheOptions | None = None) -> None:
        self.options = options or CacheOptions()
        self._step = self.options.step
        self._connections = connections
        self._debts = Debts()
        self._guard = Guard(self._try)

    @classmethod
    def from_url(cls, url: str) -> RedisCache:
        """Read the place as `redis_connections` does, and the options of `CacheOptions`."""
        _, texts = place_of("CACHE_URL", url, NAMES)
        return cls(redis_connections(url, setting="CACHE_URL", also=NAMES), options_of("CACHE_URL", texts))

    async def get(self, key: str) -> bytes | None:
        # As `_get`, without the price of one more coroutine: this is what calls do all day.
        began = self._guard.check()
        if self._debts.outdated(key):
            return None
        seconds = seconds_left(self._step)
        try:
            value = await self._connections.get(key, seconds)
        except (ConnectionsError, TimeoutError) as exc:
            raise self._guard.failed(exc, began) from None
        self._guard.succeeded()
        return value

    async def get_current(self, key: str) -> bytes | None:
        if self._debts.outdated(key):
            raise NotDoneError("the server has not yet heard of an invalidation")
        if self._guard.refusing:
            raise NotDoneError("the server takes no values")
        return await self.get(key)

    async def get_stale(self, key: str) -> bytes | None:
        return await self._get(key, names_of(key)[2])

    async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        mark = self._debts.mark(key)
        try:
            await self._script(PUT, key, value, milliseconds(ttl_seconds), stores=True)
        except CacheError:
            # The value that it should have replaced must not come back.
            self._owe(key)
            raise
        self._debts.settled(key, mark)

    async def delete(self, key: str) -> None:
        try:
            began = self._guard.check()
            try:
                await self._forget(key)
            except (ConnectionsError, TimeoutError) as exc:
                raise self._guard.failed(exc, began) from None
        except (CacheError, asyncio.CancelledError):
            self._owe(key)
            raise
        self._guard.succeeded()

    async def claim(self, key: str, token: str, *, anew: bool) -> bytes | float | None:
        if self._debts.outdated(key):
            raise NotDoneError("the server has not yet heard of an invalidation")
        lease, seconds = milliseconds(self.options.lease), seconds_left(self._step)
        try:
            reply = await self._script(CLAIM, key, token, lease, int(anew), stores=True, seconds=seconds)
        except NotDoneError:
            raise
        except (CacheError, asyncio.CancelledError):
            self._abandon(key, token)
            raise
        if isinstance(reply, bytes):
            return reply
        return None if reply == OURS else reply / 1000

    async def holds(self, key: str, token: str) -> bool:
        return await self._get(key, names_of(key)[1]) == token.encode()

    async def renew(self, key: str, token: str) -> bool:
        return bool(await self._script(RENEW, key, token, milliseconds(self.options.lease)))

    async def fulfil(self, key: str, token: str, value: bytes, ttl_seconds: float, stale_seconds: float) -> bool:
        times = (milliseconds(ttl_seconds), milliseconds(stale_seconds) if stale_seconds else 0)
        try:
            return bool(await self._script(FULFIL, key, token, value, *times, stores=True))
        except asyncio.CancelledError:
            self._abandon(key, token)
            raise

    async def release(self, key: str, token: str) -> None:
        try:
            await self._script(RELEASE, key, token)
        except (CacheError, asyncio.CancelledError):
            self._abandon(key, token)
            raise

    async def close(self) -> None:
        await self._guard.close()
        await self._connections.close()

    async def _get(self, key: str, name: str) -> bytes | None:
        began = self._guard.check()
        if self._debts.outdated(key):
            return None
        seconds = seconds_left(self._step)
        try:
            value = await self._connections.get(name, seconds)
        except (ConnectionsError, TimeoutError) as exc:
            raise self._guard.failed(exc, began) from None
        self._guard.succeeded()
        return value

    async def _script(
        self, script: Script, key: str, *arguments: Any, stores: bool = False, seconds: float | None = None
    ) -> Any:
        began = self._guard.check()
        try:
            # Each of them, done twice with the same token, is as good as once.
            reply = await self._connections.script(
                script, names_of(key), arguments, seconds or self._step, repeatable=True
            )
        except (ConnectionsError, TimeoutError) as exc:
            raise self._guard.failed(exc, began) from None
        self._guard.succeeded(stored=stores and not isinstance(reply, bytes))
        return reply

    async def _forget(self, *keys: str) -> None:
        names = [name for key in keys for name in names_of(key)]
        marks = [(key, self._debts.mark(key)) for key in keys]
        await self._connections.execute("DEL", *names, deadline_seconds=self._step, repeatable=True)
        for key, mark in marks:
            self._debts.settled(key, mark)

    def _owe(self, key: str) -> None:
        self._debts.forget(key)
        self._guard.try_again_later()

    def _abandon(self, key: str, token: str) -> None:
        """End a lease that the server may have given away unheard, as soon as it answers."""
        self._debts.release(key, token)
        self._guard.try_again_later()

    async def _try(self) -> None:
        """Ask whether the server works, and tell it what it missed."""
        await self._connections.execute("PING", deadline_seconds=self._step, repeatable=True)
        # To the end: what is owed meanwhile finds this try under way, and starts no other.
        while self._debts:
            if owed := self._debts.to_forget()[:_SETTLED_AT_ONCE]:
                await self._forget(*owed)
            for batch in _in_parts(self._debts.take_releases()):
                ends = [self._connections.script(RELEASE, names_of(key), (token,), self._step) for key, token in batch]
                await asyncio.gather(*ends, return_exceptions=True)


def _in_parts(items: Sequence[tuple[str, str]]) -> list[Sequence[tuple[str, str]]]:
    return [items[start : start + _SETTLED_AT_ONCE] for start in range(0, len(items), _SETTLED_AT_ONCE)]

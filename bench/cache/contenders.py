"""What is compared: this project's cache, redis.asyncio by hand, and cashews, each as its users would write it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Protocol

import cashews
import redis.asyncio
from redis.exceptions import RedisError

from faasbase.caching import Cache, open_cache

DEADLINE_SECONDS = 0.25
TTL_SECONDS = 60.0

Loader = Callable[[], Awaitable[str]]


class Contender(Protocol):
    """A cache on one server, as one replica of a function has it."""

    name: str

    async def get_or_load(self, key: str, load: Loader) -> str:
        """Return the value under *key*, calling *load* where there is none."""

    async def close(self) -> None:
        """Hang up."""


class Ours:
    """`faasbase`, with JSON through pydantic, metrics and leases; *first_level* in memory as well."""

    def __init__(self, port: int, *, first_level: bool = False) -> None:
        self.name = "faasbase, first level" if first_level else "faasbase"
        query = "?first_level_ttl=10s" if first_level else ""
        self._cache: Cache = open_cache(f"redis://127.0.0.1:{port}{query}", namespace="bench")

    async def get_or_load(self, key: str, load: Loader) -> str:
        return await self._cache.get_or_load(key, load, ttl_seconds=TTL_SECONDS, returns=str)

    async def close(self) -> None:
        await self._cache.close()


class Connections:
    """The connections under our cache alone: what travelling together comes to."""

    name = "faasbase.connections"

    def __init__(self, port: int) -> None:
        from faasbase.connections import redis_connections

        self._redis = redis_connections(f"redis://127.0.0.1:{port}")

    async def get_or_load(self, key: str, load: Loader) -> str:
        found = await self._redis.get(key, DEADLINE_SECONDS)
        if found is not None:
            return found.decode()
        value = await load()
        await self._redis.execute("SET", key, value, "PX", int(TTL_SECONDS * 1000), deadline_seconds=DEADLINE_SECONDS)
        return value

    async def close(self) -> None:
        await self._redis.close()


class ByHand:
    """redis.asyncio with hiredis: get, load, set, errors swallowed, a time-out on the socket; no lock."""

    name = "redis.asyncio"

    def __init__(self, port: int) -> None:
        self._redis: Any = redis.asyncio.Redis(
            host="127.0.0.1",
            port=port,
            max_connections=1000,
            socket_timeout=DEADLINE_SECONDS,
            socket_connect_timeout=DEADLINE_SECONDS,
            retry=redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0),
        )

    async def get_or_load(self, key: str, load: Loader) -> str:
        try:
            found = await self._redis.get(key)
        except (RedisError, OSError):
            return await load()
        if found is not None:
            return str(found, "utf-8")
        value = await load()
        with suppress(RedisError, OSError):
            await self._redis.set(key, value, px=int(TTL_SECONDS * 1000))
        return value

    async def close(self) -> None:
        await self._redis.aclose()


class Cashews:
    """cashews with its lock against stampedes, and its pool as large as the callers are many."""

    name = "cashews"

    def __init__(self, port: int) -> None:
        self._cache = cashews.Cache()
        self._cache.setup(
            f"redis://127.0.0.1:{port}/1",
            max_connections=1000,
            socket_timeout=DEADLINE_SECONDS,
            wait_for_connection_timeout=DEADLINE_SECONDS,
            suppress=True,
        )
        self._load: Loader | None = None

        @self._cache(ttl=TTL_SECONDS, key="bench:{key}", lock=True)
        async def cached(key: str) -> str:
            assert self._load is not None
            return await self._load()

        self._cached: Callable[[str], Awaitable[str]] = cached

    async def get_or_load(self, key: str, load: Loader) -> str:
        self._load = load
        return await self._cached(key)

    async def close(self) -> None:
        await self._cache.close()


ALL: tuple[Callable[[int], Contender], ...] = (
    Ours,
    lambda port: Ours(port, first_level=True),
    Connections,
    ByHand,
    Cashews,
)
"""Those who answer hits."""
AS_USED: tuple[Callable[[int], Contender], ...] = (Ours, ByHand, Cashews)
"""Those who load as well: for stampedes and outages."""


async def settled(seconds: float = 0.05) -> None:
    """Let what runs in the background come to its end before the next measurement."""
    await asyncio.sleep(seconds)

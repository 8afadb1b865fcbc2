"""The stock: what is left of each article, and what each order has reserved."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from faasbase import Problem
from faasbase.connections import ConnectionsError, RedisConnections, Script, redis_connections

INITIAL_STOCK = 100
DEADLINE_SECONDS = 2.0
KEPT_SECONDS = 30 * 24 * 3600
"""How long a reservation is known; a repeat of its order that comes later would reserve once more."""

# One script, one step: no crash and no second worker comes between looking, taking and noting.  KEYS are the stock and
# the order's reservation, in one slot of a cluster; ARGV are the initial stock, the seconds to keep it, then pairs.
RESERVE = Script(
    "reserve",
    """
    local noted = redis.call('GET', KEYS[2])
    if noted then return noted end
    local missing = {}
    for i = 3, #ARGV, 2 do
      local left = tonumber(redis.call('HGET', KEYS[1], ARGV[i]) or ARGV[1])
      if left < tonumber(ARGV[i + 1]) then missing[#missing + 1] = ARGV[i] end
    end
    if #missing == 0 then
      for i = 3, #ARGV, 2 do
        redis.call('HSETNX', KEYS[1], ARGV[i], ARGV[1])
        redis.call('HINCRBY', KEYS[1], ARGV[i], -tonumber(ARGV[i + 1]))
      end
    end
    local result = table.concat(missing, ' ')
    redis.call('SET', KEYS[2], result, 'EX', ARGV[2])
    return result
    """,
)


class Stock(Protocol):
    """What is left of each article."""

    async def reserve(self, order_id: str, wanted: Mapping[str, int]) -> list[str]:
        """
        Take *wanted* once for the order, all of it, or nothing and return the articles that are missing.

        Asked again for the same order, nothing is taken and the answer is that of the first time.

        Raises:
            Problem: 503, the stock cannot be asked now; asking again is safe.
        """

    async def left(self, sku: str) -> int:
        """Return how many of an article are left."""


class RedisStock:
    """A stock that all replicas share."""

    def __init__(self, connections: RedisConnections) -> None:
        self._connections = connections

    async def reserve(self, order_id: str, wanted: Mapping[str, int]) -> list[str]:
        keys = ["{stock}:left", f"{{stock}}:order:{order_id}"]
        pairs = [word for pair in wanted.items() for word in pair]
        args = [INITIAL_STOCK, KEPT_SECONDS, *pairs]
        try:
            missing = await self._connections.script(RESERVE, keys, args, DEADLINE_SECONDS, repeatable=True)
        except (ConnectionsError, TimeoutError) as exc:
            raise Problem(503, "the stock cannot be asked now") from exc
        return [sku.decode() for sku in missing.split()]

    async def left(self, sku: str) -> int:
        try:
            left = await self._connections.execute("HGET", "{stock}:left", sku, deadline_seconds=DEADLINE_SECONDS)
        except (ConnectionsError, TimeoutError) as exc:
            raise Problem(503, "the stock cannot be asked now") from exc
        return INITIAL_STOCK if left is None else int(left)


class MemoryStock:
    """The stock of one process, which goes with it: for trying things out."""

    def __init__(self) -> None:
        self._left: dict[str, int] = {}
        self._orders: dict[str, list[str]] = {}

    async def reserve(self, order_id: str, wanted: Mapping[str, int]) -> list[str]:
        if order_id not in self._orders:
            missing = [sku for sku, quantity in wanted.items() if self._left.get(sku, INITIAL_STOCK) < quantity]
            for sku, quantity in () if missing else wanted.items():
                self._left[sku] = self._left.get(sku, INITIAL_STOCK) - quantity
            self._orders[order_id] = missing
        return self._orders[order_id]

    async def left(self, sku: str) -> int:
        return self._left.get(sku, INITIAL_STOCK)


@asynccontextmanager
async def open_stock(environ: Mapping[str, str]) -> AsyncIterator[Stock]:
    """
    Open the stock that ``STOCK_URL`` names: a Redis, or ``memory://``.

    Raises:
        SettingError: The URL cannot be used.
    """
    url = environ.get("STOCK_URL", "memory://")
    if url == "memory://":
        yield MemoryStock()
        return
    connections = redis_connections(url, setting="STOCK_URL")
    try:
        yield RedisStock(connections)
    finally:
        await connections.close()

"""No value that was read before an invalidation is found after it, whatever comes in between, on any replica."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faasbase.caching import Cache, open_cache
from tests.servers import RedisServer

REPLICAS = 3
KEY = "prices:1"

Step = tuple[Literal["load", "end", "write", "write at an end", "read", "pause"], int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["load", "load", "end", "write", "write at an end", "read", "pause"]),
        st.integers(0, REPLICAS - 1),
    ),
    min_size=4,
    max_size=20,
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@dataclass
class World:
    """A source with a version, replicas that cache it, and loads that have read it and have not come back yet."""

    caches: list[Cache]
    version: int = 0
    invalidated: int = 0
    """The version that every read must show at least, since its invalidation is over."""
    gates: list[asyncio.Event] = field(default_factory=list)
    calls: list[asyncio.Task[None]] = field(default_factory=list)

    async def take(self, step: str, replica: int) -> None:
        cache = self.caches[replica]
        if step == "load":
            self.calls.append(asyncio.create_task(self.call(cache)))
        elif step == "end":
            self.open_gate()
        elif step == "write":
            await self.write(cache)
        elif step == "write at an end":
            self.open_gate()
            await self.write(cache)
        elif step == "read":
            await self.read(cache)
        elif step == "pause":
            await asyncio.sleep(0.03)
        for _ in range(replica + 1):
            await asyncio.sleep(0.001)

    def open_gate(self) -> None:
        if self.gates:
            self.gates.pop(0).set()

    async def load(self) -> int:
        version, gate = self.version, asyncio.Event()
        self.gates.append(gate)
        await gate.wait()
        return version

    async def call(self, cache: Cache) -> None:
        least = self.invalidated
        got = await cache.get_or_load(KEY, self.load, ttl_seconds=60, returns=int)
        assert got >= least, "a call got what was invalidated before it began"

    async def write(self, cache: Cache) -> None:
        self.version += 1
        written = self.version
        await cache.delete(KEY)
        self.invalidated = max(self.invalidated, written)

    async def read(self, cache: Cache) -> None:
        least = self.invalidated
        found = await cache.get(KEY)
        assert found is None or int(found) >= least, "the cache has what was invalidated"

    async def finish(self) -> None:
        async with asyncio.timeout(20):
            while not all(call.done() for call in self.calls):
                self.open_gate()
                await asyncio.sleep(0.002)
        for call in self.calls:
            call.result()
        await asyncio.sleep(0.01)
        for cache in self.caches:
            await self.read(cache)


async def play(url: str, steps: list[Step]) -> None:
    world = World([open_cache(url, namespace="shop") for _ in range(REPLICAS)])
    try:
        for step, replica in steps:
            await world.take(step, replica)
        await world.finish()
    finally:
        for cache in world.caches:
            await cache.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_no_stale_value_survives_an_invalidation(server: RedisServer, steps: list[Step]) -> None:
    server.command("FLUSHALL")
    asyncio.run(play(f"{server.url}?deadline=8s&lease=5s", steps))

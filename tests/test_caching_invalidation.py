"""
No value that was read before an invalidation is found after it, whatever comes in between, on any replica.

What is invalidated while the server is out of reach is gone for that replica at once, for all as soon as it has heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Literal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from faasbase.caching import Cache, open_cache
from tests.servers import RedisServer
from tests.stalling import StallingProxy

REPLICAS = 3
KEY = "prices:1"
PROBE = "probe"

Name = Literal["load", "end", "write", "write at an end", "read", "pause", "leave", "return"]
Step = tuple[Name, int]
NAMES: tuple[Name, ...] = ("load", "load", "load", "end", "write", "write", "write at an end", "read", "pause")
STEPS = st.lists(
    st.tuples(st.sampled_from((*NAMES, "leave", "return")), st.integers(0, REPLICAS - 1)), min_size=4, max_size=24
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running, pytest.MonkeyPatch.context() as patch:
        patch.setattr("faasbase.caching.guard.OPEN_SECONDS", 0.02)
        yield running


class Way(StallingProxy):
    """The way to the server, which can be closed: then connections are reset, those that are there and new ones."""

    closed = False

    def close(self) -> None:
        self.closed = True
        self.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.closed:
            writer.transport.abort()
        else:
            await super()._accept(reader, writer)


@dataclass
class Replica:
    """A cache, and what it must not show any more."""

    cache: Cache
    way: Way
    least: int = 0
    """The version that it must show at least, where it has none of the others' news: its own invalidations."""
    owed: int = 0
    """The version whose invalidation the server may not have heard of."""
    absences: int = 0


@dataclass
class World:
    """A source with a version, replicas that cache it, and loads that have read it and have not come back yet."""

    server: RedisServer
    replicas: list[Replica]
    version: int = 0
    invalidated: int = 0
    """The version that every read must show at least, since the server knows of its invalidation."""
    gates: list[asyncio.Event] = field(default_factory=list)
    calls: list[asyncio.Task[None]] = field(default_factory=list)

    async def take(self, step: Name, number: int) -> None:
        replica = self.replicas[number]
        if step == "load":
            self.calls.append(asyncio.create_task(self.call(replica)))
        elif step in ("end", "write at an end"):
            self.open_gate()
        if step in ("write", "write at an end"):
            await self.write(replica)
        elif step == "read":
            await self.read(replica)
        elif step == "pause":
            await asyncio.sleep(0.03)
        elif step == "leave":
            replica.absences += 1
            replica.way.close()
        elif step == "return":
            await self.come_back(replica)
        for _ in range(number + 1):
            await asyncio.sleep(0.001)

    def open_gate(self) -> None:
        if self.gates:
            self.gates.pop(0).set()

    async def load(self) -> int:
        version, gate = self.version, asyncio.Event()
        self.gates.append(gate)
        await gate.wait()
        return version

    async def call(self, replica: Replica) -> None:
        least, own, absences = self.invalidated, replica.least, replica.absences
        there = not replica.way.closed
        got = await replica.cache.get_or_load(KEY, self.load, ttl_seconds=60, returns=int)
        if not there or replica.absences != absences:
            # Behind its own load it cannot learn what the others have invalidated.
            least = own
        assert got >= least, "a call got what was invalidated before it began"

    async def write(self, replica: Replica) -> None:
        self.version += 1
        written, absences = self.version, replica.absences
        there = not replica.way.closed
        await replica.cache.delete(KEY)
        replica.least = max(replica.least, written)
        if there and replica.absences == absences:
            self.invalidated = max(self.invalidated, written)
        else:
            replica.owed = max(replica.owed, written)

    async def read(self, replica: Replica) -> None:
        least = max(self.invalidated, replica.least)
        found = await replica.cache.get(KEY)
        assert found is None or int(found) >= least, "the cache has what was invalidated"

    async def come_back(self, replica: Replica) -> None:
        """Open the way, and wait until the server has heard what it missed and is asked again."""
        if not replica.way.closed:
            return
        last = f"last:{id(replica)}"
        self.server.command("MSET", f"faas:shop:{last}", 1, f"faas:shop:{PROBE}", 1)
        await replica.cache.delete(last)
        owed, replica.way.closed = replica.owed, False
        async with asyncio.timeout(10):
            while not await self.heard(replica, last):  # noqa: ASYNC110 - a server tells nobody
                await asyncio.sleep(0.005)
        self.invalidated = max(self.invalidated, owed)

    async def heard(self, replica: Replica, last: str) -> bool:
        gone = self.server.command("EXISTS", f"faas:shop:{last}") == "0"
        return gone and await replica.cache.get(PROBE) is not None

    async def finish(self) -> None:
        async with asyncio.timeout(20):
            for replica in self.replicas:
                await self.come_back(replica)
            while not all(call.done() for call in self.calls):
                self.open_gate()
                await asyncio.sleep(0.002)
        for call in self.calls:
            call.result()
        await asyncio.sleep(0.01)
        assert self.invalidated == self.version
        for replica in self.replicas:
            await self.read(replica)


async def play(server: RedisServer, steps: list[Step]) -> None:
    async with AsyncExitStack() as stack:
        replicas = []
        for _ in range(REPLICAS):
            way = await stack.enter_async_context(Way(server.address))
            cache = open_cache(f"redis://127.0.0.1:{way.port}/0?deadline=8s&lease=5s", namespace="shop")
            stack.push_async_callback(cache.close)
            replicas.append(Replica(cache, way))
        world = World(server, replicas)
        for step, number in steps:
            await world.take(step, number)
        await world.finish()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
@example(steps=[("leave", 0), ("load", 0), ("pause", 0), ("return", 0), ("write", 1), ("load", 0)])
def test_no_stale_value_survives_an_invalidation(server: RedisServer, steps: list[Step]) -> None:
    server.command("FLUSHALL")
    asyncio.run(play(server, steps))

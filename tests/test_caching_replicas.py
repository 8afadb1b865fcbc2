"""One load at a time among processes that share a server: stampedes, dead owners, slow loaders."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from faasbase.caching import Cache, open_cache
from faasbase.errors import Problem
from tests.servers import RedisServer
from tests.staging import BASE, ROOT

pytestmark = pytest.mark.anyio

LEASE_SECONDS = 1.0
MARGIN_SECONDS = 3.0
"""For a machine that others use too."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def url(server: RedisServer) -> str:
    server.command("FLUSHALL")
    return f"{server.url}?lease={LEASE_SECONDS:g}s&deadline=8s"


@pytest.fixture
async def two(url: str) -> AsyncIterator[tuple[Cache, Cache]]:
    """Two caches of one function, as two replicas have them; what they share is the server alone."""
    caches = open_cache(url, namespace="replicas"), open_cache(url, namespace="replicas")
    yield caches
    for cache in caches:
        await cache.close()


@dataclass
class Replica:
    process: asyncio.subprocess.Process

    async def load(self, key: str, times: int, seconds: float) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"load {key} {times} {seconds}\n".encode())
        reply: dict[str, Any] = json.loads(await self.line())
        return reply

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            return (await self.process.stdout.readline()).decode()


@asynccontextmanager
async def replica(url: str, runs: Path) -> AsyncIterator[Replica]:
    environ = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{BASE}"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.replica", url, str(runs)),
        env=environ,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        started = Replica(process)
        assert await started.line() == "ready\n"
        yield started
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_thousand_misses_over_three_processes_run_a_loader_once_that_outlasts_its_lease(
    url: str, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(replica(url, runs)) for _ in range(3)]
        loads = [one.load("k:1", 334, 2.5 * LEASE_SECONDS) for one in replicas]
        replies = await asyncio.gather(*loads)
    assert [reply["results"] for reply in replies] == [[7]] * 3
    assert len(runs.read_text().split()) == 1


async def test_killed_loader_costs_the_others_one_lease(url: str, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    async with replica(url, runs) as doomed, replica(url, runs) as other:
        loading = asyncio.create_task(doomed.load("k:1", 10, 60))
        with anyio.fail_after(20):
            while not runs.exists():  # noqa: ASYNC110 - a file tells nobody that it is there
                await anyio.sleep(0.02)
        doomed.process.kill()
        killed = time.monotonic()
        reply = await other.load("k:1", 10, 0)
        assert reply["results"] == [7]
        assert time.monotonic() - killed < LEASE_SECONDS + MARGIN_SECONDS
        loading.cancel()
        await asyncio.wait({loading})
    assert len(runs.read_text().split()) == 2


async def test_waiting_replica_gets_the_value_of_the_other(two: tuple[Cache, Cache]) -> None:
    may_end = asyncio.Event()

    async def slow() -> int:
        await may_end.wait()
        return 1

    async def unwanted() -> int:
        return 2

    first = asyncio.create_task(two[0].get_or_load("k:1", slow, ttl_seconds=60, returns=int))
    await anyio.sleep(0.3)
    second = asyncio.create_task(two[1].get_or_load("k:1", unwanted, ttl_seconds=60, returns=int))
    await anyio.sleep(0.3)
    assert not second.done()
    may_end.set()
    assert (await first, await second) == (1, 1)


async def test_failed_load_lets_the_other_replica_try_at_once(two: tuple[Cache, Cache]) -> None:
    may_end = asyncio.Event()

    async def failing() -> int:
        await may_end.wait()
        raise LookupError("no such item")

    async def working() -> int:
        return 2

    first = asyncio.create_task(two[0].get_or_load("k:1", failing, ttl_seconds=60, returns=int))
    await anyio.sleep(0.3)
    second = asyncio.create_task(two[1].get_or_load("k:1", working, ttl_seconds=60, returns=int))
    may_end.set()
    with pytest.raises(LookupError):
        await first
    assert await second == 2


async def test_abandoned_load_and_an_ended_process_leave_no_lease(
    two: tuple[Cache, Cache], server: RedisServer
) -> None:
    async def endless() -> int:
        await asyncio.sleep(60)
        return 1

    abandoned = asyncio.create_task(two[0].get_or_load("k:1", endless, ttl_seconds=60, returns=int))
    cut_off = asyncio.create_task(two[0].get_or_load("k:2", endless, ttl_seconds=60, returns=int))
    await anyio.sleep(0.3)
    assert server.command("DBSIZE") == "2"
    abandoned.cancel()
    await asyncio.wait({abandoned})
    await two[0].close()
    with pytest.raises(RuntimeError, match="closed"):
        await cut_off
    assert server.command("DBSIZE") == "0"


async def test_value_that_cannot_be_cached_is_not_loaded_by_one_replica_after_the_other(
    two: tuple[Cache, Cache],
) -> None:
    running = 0
    most = 0

    async def text() -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.sleep(0.5)
        running -= 1
        return "seven"  # type: ignore[return-value]

    first = asyncio.create_task(two[0].get_or_load("k:1", text, ttl_seconds=60, returns=int))
    await anyio.sleep(0.2)
    others = [asyncio.create_task(two[1].get_or_load(f"k:{n}", text, ttl_seconds=60, returns=int)) for n in (1, 2)]
    await asyncio.gather(first, *others)
    again = [cache.get_or_load("k:1", text, ttl_seconds=60, returns=int) for cache in two]
    most = 0
    await asyncio.gather(*again)
    assert most == 2


async def test_stale_value_stands_in_for_a_failed_load_and_not_for_an_answer(two: tuple[Cache, Cache]) -> None:
    errors: list[Exception] = []

    async def load() -> int:
        if errors:
            raise errors[0]
        return 1

    async def call(cache: Cache) -> int:
        return await cache.get_or_load("k:1", load, ttl_seconds=0.2, returns=int, stale_if_error_seconds=60)

    assert await call(two[0]) == 1
    await anyio.sleep(0.4)
    errors.append(Problem(404, "gone"))
    with pytest.raises(Problem, match="gone"):
        await call(two[0])
    errors[0] = ConnectionError("upstream is down")
    assert (await call(two[0]), await call(two[1])) == (1, 1)
    await two[0].delete("k:1")
    with pytest.raises(ConnectionError):
        await call(two[1])


async def test_absence_is_kept_for_its_own_time(two: tuple[Cache, Cache]) -> None:
    runs: list[str] = []

    async def missing() -> int | None:
        runs.append("missing")
        raise Problem(404, "no such item", title="Unknown")

    async def none() -> int | None:
        runs.append("none")
        return None

    async def call(cache: Cache, key: str) -> int | None:
        load = none if key == "k:none" else missing
        return await cache.get_or_load(key, load, ttl_seconds=60, returns=int | None, negative_ttl_seconds=0.5)  # type: ignore[arg-type]

    for cache in two:
        with pytest.raises(Problem) as caught:
            await call(cache, "k:404")
        assert (caught.value.status, caught.value.detail, caught.value.title) == (404, "no such item", "Unknown")
        assert await call(cache, "k:none") is None
        await anyio.sleep(0.1)
    assert runs == ["missing", "none"]
    await anyio.sleep(0.6)
    assert await call(two[1], "k:none") is None
    assert runs == ["missing", "none", "none"]

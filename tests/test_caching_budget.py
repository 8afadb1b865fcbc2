"""The cache adds at most its own deadline to a call, all its steps together, however slowly its server answers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio import to_thread

from faasbase.caching import Cache, activate_cache, open_cache
from faasbase.caching.values import values_of
from tests.servers import RedisServer
from tests.stalling import StallingProxy

pytestmark = pytest.mark.anyio

KEY = "prices:1"
DEADLINE_SECONDS = 0.6
MARGIN_SECONDS = 0.05
SLOW_SECONDS = 0.27
"""What each answer takes: less than the half of the deadline that a step may take, and no third one fits in."""


@dataclass
class Source:
    """Where values are loaded from, in a thread."""

    value: int = 1
    error: Exception | None = None
    may_end: threading.Event = field(default_factory=threading.Event)
    loads: int = 0

    def load(self) -> int:
        self.loads += 1
        assert self.may_end.wait(10)
        if self.error:
            raise self.error
        return self.value


@dataclass
class Setup:
    """A cache behind a proxy, its twin in another replica, and the kind of functions that call it."""

    near: Cache
    far: Cache
    proxy: StallingProxy
    kind: str

    async def call(self, source: Source, ttl_seconds: float = 60) -> int:
        if self.kind == "async":
            load = partial(to_thread.run_sync, source.load)
            return await self.near.get_or_load(
                KEY, load, ttl_seconds=ttl_seconds, returns=int, stale_if_error_seconds=60
            )
        plain = partial(self.near.blocking.get_or_load, KEY, source.load, ttl_seconds=ttl_seconds)
        return await to_thread.run_sync(partial(plain, returns=values_of(int), stale_if_error_seconds=60))


@pytest.fixture(params=["async", "def"])
async def setup(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Setup]:
    with RedisServer(tmp_path) as server:
        async with StallingProxy(server.address) as proxy:
            near = open_cache(f"redis://127.0.0.1:{proxy.port}/0?deadline={DEADLINE_SECONDS * 1000:.0f}ms")
            far = open_cache(f"{server.url}?deadline=8s")
            with activate_cache(near):
                yield Setup(near, far, proxy, request.param)
            await near.close()
            await far.close()


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - a counter tells nobody
            await anyio.sleep(0.005)


def ready(value: int = 1, error: Exception | None = None) -> Source:
    source = Source(value, error)
    source.may_end.set()
    return source


async def test_call_behind_a_load_that_was_invalidated_elsewhere_waits_for_one_deadline(setup: Setup) -> None:
    old, new = Source(1), ready(2)
    first = asyncio.create_task(setup.call(old))
    await until(lambda: old.loads == 1)
    await setup.far.delete(KEY)
    setup.proxy.delay_seconds = SLOW_SECONDS
    began = time.monotonic()
    assert await setup.call(new) == 2
    assert time.monotonic() - began < DEADLINE_SECONDS + MARGIN_SECONDS
    old.may_end.set()
    assert await first == 1


async def test_failed_load_waits_for_no_old_value_beyond_the_deadline(setup: Setup) -> None:
    assert await setup.call(ready(1), ttl_seconds=0.1) == 1
    await anyio.sleep(0.2)
    failing = ready(error=ConnectionError("upstream is down"))
    assert await setup.call(failing, ttl_seconds=0.1) == 1
    await anyio.sleep(0.2)
    setup.proxy.delay_seconds = SLOW_SECONDS
    began = time.monotonic()
    with pytest.raises(ConnectionError, match="upstream"):
        await setup.call(failing)
    assert time.monotonic() - began < DEADLINE_SECONDS + MARGIN_SECONDS
    assert failing.loads == 2


async def test_who_waits_for_the_load_of_another_is_not_kept_beyond_its_own_time(setup: Setup) -> None:
    source = Source(error=ConnectionError("upstream is down"))
    first = asyncio.create_task(setup.call(source))
    await until(lambda: source.loads == 1)
    setup.proxy.delay_seconds = SLOW_SECONDS
    second = asyncio.create_task(setup.call(source))
    await anyio.sleep(2 * SLOW_SECONDS + 0.1)
    began = time.monotonic()
    source.may_end.set()
    for call in (first, second):
        with pytest.raises(ConnectionError, match="upstream"):
            await call
    assert time.monotonic() - began < DEADLINE_SECONDS - 2 * SLOW_SECONDS + MARGIN_SECONDS
    assert source.loads == 1


@pytest.mark.parametrize("setup", ["def"], indirect=True)
async def test_blocked_event_loop_keeps_a_thread_for_one_deadline_and_no_invalidation_from_the_server(
    setup: Setup,
) -> None:
    await setup.near.set(KEY, b"1", 60)
    returns, took = values_of(int), list[float]()

    def call() -> None:
        began = time.monotonic()
        setup.near.blocking.delete(KEY)
        took.append(time.monotonic() - began)
        began = time.monotonic()
        assert setup.near.blocking.get_or_load(KEY, ready(2).load, ttl_seconds=60, returns=returns) == 2
        took.append(time.monotonic() - began)

    thread = threading.Thread(target=call)
    thread.start()
    # This is what a handler does that should have been a `def`.
    time.sleep(3 * DEADLINE_SECONDS)  # noqa: ASYNC251
    await to_thread.run_sync(thread.join, 10)
    assert max(took) < DEADLINE_SECONDS + MARGIN_SECONDS
    # Sooner than what the server missed is made up for.
    with anyio.fail_after(0.5):
        while await setup.far.get(KEY) == b"1":  # noqa: ASYNC110 - a server tells nobody
            await anyio.sleep(0.01)

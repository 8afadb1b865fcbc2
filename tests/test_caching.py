"""What holds for every cache, whichever back end is behind it, and for `@cached` on top."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import ClassVar

import anyio
import pytest
from pydantic import TypeAdapter

from faasbase.app import resources
from faasbase.caching import Cache, CacheBackend, CacheError, activate_cache, backend, current_cache, open_cache
from faasbase.caching.memory import MemoryCache
from faasbase.errors import SettingError
from faasbase.settings import Settings
from tests.servers import RedisServer

pytestmark = pytest.mark.anyio

BACKENDS = ("memory", "redis", "redis-first-level")
"""The contract below runs on all of them."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(params=BACKENDS)
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[Cache]:
    url = "memory://"
    if request.param != "memory":
        running: RedisServer = request.getfixturevalue("server")
        running.command("FLUSHALL")
        # Long deadlines: what the machine does beside must not look like an outage.
        first_level = "&first_level_ttl=1s" if "first-level" in request.param else ""
        url = f"{running.url}?deadline=8s{first_level}"
    opened = open_cache(url, namespace="tests")
    with activate_cache(opened):
        yield opened
    await opened.close()


class Loads:
    """A loader that counts its runs and waits until it may go on."""

    def __init__(self, result: object = 1, *, waits: bool = False) -> None:
        self.count, self._result = 0, result
        self.may_end = anyio.Event()
        if not waits:
            self.may_end.set()

    async def __call__(self) -> int:
        self.count += 1
        await self.may_end.wait()
        if isinstance(self._result, Exception):
            raise self._result
        assert isinstance(self._result, int)
        return self._result


async def load(cache: Cache, loads: Loads, key: str = "numbers:1") -> int:
    return await cache.get_or_load(key, loads, ttl_seconds=60, returns=int)


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(5):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await anyio.sleep(0.001)


async def test_value_that_was_set_is_found(cache: Cache) -> None:
    await cache.set("a", b"1", 60)
    assert await cache.get("a") == b"1"


async def test_unknown_key_is_none(cache: Cache) -> None:
    assert await cache.get("a") is None


async def test_later_value_takes_the_place_of_the_earlier(cache: Cache) -> None:
    await cache.set("a", b"1", 60)
    await cache.set("a", b"\x00\xff", 60)
    assert await cache.get("a") == b"\x00\xff"


async def test_deleted_value_is_gone_and_deleting_again_is_harmless(cache: Cache) -> None:
    await cache.set("a", b"1", 60)
    await cache.delete("a")
    await cache.delete("a")
    assert await cache.get("a") is None


async def test_value_ends_with_its_ttl(cache: Cache) -> None:
    await cache.set("a", b"1", 0.05)
    await anyio.sleep(0.1)
    assert await cache.get("a") is None


async def test_ttl_of_zero_is_refused(cache: Cache) -> None:
    with pytest.raises(ValueError, match="more than zero"):
        await cache.set("a", b"1", 0)


async def test_loaded_value_is_loaded_once(cache: Cache) -> None:
    loads = Loads(7)
    assert [await load(cache, loads), await load(cache, loads)] == [7, 7]
    assert loads.count == 1


async def test_thousand_callers_at_once_share_one_load(cache: Cache) -> None:
    loads, results = Loads(7, waits=True), list[int]()

    async def call() -> None:
        results.append(await load(cache, loads))

    async with anyio.create_task_group() as callers:
        for _ in range(1000):
            callers.start_soon(call)
        await until(lambda: loads.count > 0)
        loads.may_end.set()
    assert (loads.count, results) == (1, [7] * 1000)


async def test_cancelled_first_caller_does_not_fail_the_others(cache: Cache) -> None:
    loads = Loads(7, waits=True)
    first = asyncio.create_task(load(cache, loads))
    await until(lambda: loads.count == 1)
    second = asyncio.create_task(load(cache, loads))
    # Until it has found nothing in the cache and waits with the first.
    await anyio.sleep(0.1)
    first.cancel()
    await asyncio.wait({first}, timeout=1)
    loads.may_end.set()
    assert (first.cancelled(), await second, loads.count) == (True, 7, 1)


async def test_load_that_nobody_waits_for_is_cancelled_and_the_next_caller_starts_anew(cache: Cache) -> None:
    abandoned, fresh = Loads(1, waits=True), Loads(2)
    only = asyncio.create_task(load(cache, abandoned))
    await until(lambda: abandoned.count == 1)
    only.cancel()
    await asyncio.wait({only}, timeout=1)
    assert await load(cache, fresh) == 2
    abandoned.may_end.set()
    await anyio.sleep(0.01)
    assert await load(cache, Loads(3)) == 2


async def test_error_reaches_all_callers_and_is_not_cached(cache: Cache) -> None:
    loads = Loads(LookupError("no such item"), waits=True)
    callers = [asyncio.create_task(load(cache, loads)) for _ in range(3)]
    await until(lambda: loads.count == 1)
    loads.may_end.set()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert all(isinstance(result, LookupError) for result in results)
    assert (loads.count, await load(cache, Loads(5))) == (1, 5)


async def test_value_loaded_before_an_invalidation_is_not_kept(cache: Cache) -> None:
    stale, fresh = Loads(1, waits=True), Loads(2)
    before = asyncio.create_task(load(cache, stale))
    await until(lambda: stale.count == 1)
    await cache.delete("numbers:1")
    after = await load(cache, fresh)
    stale.may_end.set()
    assert (await before, after, await load(cache, Loads(3))) == (1, 2, 2)


async def test_entry_of_another_type_is_loaded_again(cache: Cache) -> None:
    await cache.get_or_load("k:1", Loads(7), ttl_seconds=60, returns=int)

    async def words() -> list[str]:
        return ["a"]

    assert await cache.get_or_load("k:1", words, ttl_seconds=60, returns=TypeAdapter(list[str])) == ["a"]


class Failing:
    """A back end that can be made to fail or to answer late, over one in memory."""

    def __init__(self) -> None:
        self.inner: CacheBackend = MemoryCache()
        self.error: Exception | None = None
        self.delay_seconds = 0.0

    async def _trouble(self) -> None:
        await anyio.sleep(self.delay_seconds)
        if self.error:
            raise self.error

    async def get(self, key: str) -> bytes | None:
        await self._trouble()
        return await self.inner.get(key)

    async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        await self._trouble()
        await self.inner.set(key, value, ttl_seconds)

    async def delete(self, key: str) -> None:
        await self._trouble()
        await self.inner.delete(key)

    async def close(self) -> None:
        await self.inner.close()


async def test_failing_back_end_costs_a_load_and_one_log_line_for_each_change(
    caplog: pytest.LogCaptureFixture,
) -> None:
    backend = Failing()
    cache, loads = Cache(backend), Loads(7)
    backend.error = CacheError("down")
    with caplog.at_level(logging.INFO, "faasbase.caching"):
        assert [await load(cache, loads) for _ in range(3)] == [7, 7, 7]
        backend.error = ConnectionError("redis://user:secret@host")
        assert await cache.get("a") is None
        backend.error = None
        assert [await load(cache, loads) for _ in range(3)] == [7, 7, 7]
    assert loads.count == 4
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "secret" not in caplog.text


async def test_slow_back_end_adds_its_deadline_and_no_more() -> None:
    backend = Failing()
    backend.delay_seconds = 30
    cache = Cache(backend, deadline_seconds=0.05)
    with anyio.fail_after(1):
        assert await load(cache, Loads(7)) == 7


async def test_invalidation_is_not_undone_by_a_value_on_its_way_into_the_cache() -> None:
    backend = Failing()
    cache = Cache(backend)
    loads = Loads(1, waits=True)
    running = asyncio.create_task(load(cache, loads))
    await until(lambda: loads.count == 1)
    backend.delay_seconds = 0.05
    loads.may_end.set()
    await anyio.sleep(0.02)
    await cache.delete("numbers:1")
    assert (await running, await cache.get("numbers:1")) == (1, None)


async def test_closing_cancels_loads_and_tells_their_callers() -> None:
    cache = open_cache("memory://")
    running = asyncio.create_task(load(cache, Loads(waits=True)))
    await anyio.sleep(0.01)
    await cache.close()
    with pytest.raises(RuntimeError, match="closed"):
        await running


def test_active_cache_is_the_last_one_activated() -> None:
    outer, inner = open_cache("memory://"), open_cache("memory://")
    with activate_cache(outer):
        with activate_cache(inner):
            assert current_cache() is inner
        assert current_cache() is outer
    assert current_cache() not in (outer, inner)


@pytest.mark.parametrize(
    "url", ["", "redis//:s3cret@host", "unknown://:s3cret@host", "http://[s3cret", "memory://?size=s3cret"]
)
def test_unusable_url_stops_the_start_and_is_not_shown(url: str) -> None:
    with pytest.raises(SettingError) as caught:
        open_cache(url)
    assert caught.value.name == "CACHE_URL"
    assert "s3cret" not in str(caught.value)


class SharedCache(MemoryCache):
    """One place for the entries of several functions, as a server is; it keeps them when a function ends."""

    opened: ClassVar[list["SharedCache"]] = []

    @classmethod
    def from_url(cls, url: str) -> "SharedCache":
        cls.opened = cls.opened or [cls()]
        return cls.opened[0]

    async def close(self) -> None:
        pass


async def test_functions_that_share_a_server_do_not_share_entries(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The modules of all handlers are called function.handler, so that equal functions have equal keys."""
    monkeypatch.setitem(backend.BACKENDS, "shared", f"{__name__}:SharedCache")
    found = list[int]()
    for name in ("shop", "bank", "shop"):
        settings = Settings(function_name=name, cache_url="shared://", storage_url=f"file://{tmp_path}")
        async with resources(settings):
            found.append(await load(current_cache(), Loads(len(found)), "function.handler.total:v1:0"))
    assert found == [0, 1, 0]

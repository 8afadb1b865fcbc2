"""What else the cache on Redis promises: names, sizes, the first level, threads, spans, metrics, its URL."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator

import anyio
import pytest
from anyio import to_thread
from prometheus_client import REGISTRY

from faasbase.caching import Cache, activate_cache, cached, open_cache
from faasbase.errors import SettingError
from faasbase.testing import captured_spans
from tests.servers import RedisServer
from tests.staging import BASE

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        running.command("FLUSHALL")
        yield running


@pytest.fixture
async def cache(server: RedisServer) -> AsyncIterator[Cache]:
    server.command("FLUSHALL")
    opened = open_cache(f"{server.url}?deadline=8s&max_value_bytes=100", namespace="shop")
    with activate_cache(opened):
        yield opened
    await opened.close()


def count(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def stored(server: RedisServer, entries: int) -> list[str]:
    """Wait until the server holds that many *entries* and no lease, and return their names."""
    with anyio.fail_after(10):
        while len(names := keys_of(server)) != entries or any(name.startswith("lease:") for name in names):  # noqa: ASYNC110 - a server tells nobody
            await anyio.sleep(0.01)
    return names


def keys_of(server: RedisServer) -> list[str]:
    return server.command("EVAL", "return table.concat(redis.call('KEYS', '*'), ' ')", 0).split()


async def test_names_show_function_and_version_and_end_with_their_time(server: RedisServer, cache: Cache) -> None:
    @cached(ttl=100, version=3)
    async def price(item: str) -> int:
        return 5

    assert await price("ink") == 5
    (name,) = await stored(server, 1)
    assert name == f"faas:shop:{price.key('ink')}"
    assert ":v3:" in name
    assert server.command("GET", name) == "5"
    assert 90_000 - 5_000 <= int(server.command("PTTL", name)) <= 100_000


async def test_times_to_live_differ(server: RedisServer, cache: Cache) -> None:
    @cached(ttl=1000)
    async def price(item: int) -> int:
        return item

    await asyncio.gather(*map(price, range(30)))
    names = await stored(server, 30)
    assert len({int(server.command("TTL", name)) for name in names}) > 5


async def test_large_value_is_returned_counted_and_not_kept(
    server: RedisServer, cache: Cache, caplog: pytest.LogCaptureFixture
) -> None:
    @cached(ttl=60)
    async def text(length: int) -> str:
        return "x" * length

    before = count("faas_cache_operations_total", operation="set", outcome="too_large")
    assert [len(await text(length)) for length in (98, 99, 99)] == [98, 99, 99]
    assert count("faas_cache_operations_total", operation="set", outcome="too_large") - before == 2
    assert len([line for line in caplog.messages if "larger than 100 bytes" in line]) == 1
    await cache.set("raw", b"small", 60)
    await cache.set("raw", b"x" * 101, 60)
    assert await cache.get("raw") is None


async def test_hits_of_one_turn_travel_as_one_round_trip(server: RedisServer, cache: Cache) -> None:
    for number in range(50):
        await cache.set(f"k:{number}", b"1", 60)
    before = server.calls("mget")

    async def never() -> int:
        raise AssertionError

    keys = [f"k:{number % 50}" for number in range(200)]
    found = await asyncio.gather(*(cache.get_or_load(key, never, ttl_seconds=60, returns=int) for key in keys))
    assert (set(found), server.calls("mget") - before) == ({1}, 1)


async def test_first_level_answers_without_the_server_and_forgets_at_once(server: RedisServer) -> None:
    server.command("FLUSHALL")
    near, other = (open_cache(f"{server.url}?deadline=8s&first_level_ttl=1s") for _ in range(2))
    version = 1

    async def load() -> int:
        return version

    async def call(cache: Cache) -> int:
        return await cache.get_or_load("k:1", load, ttl_seconds=60, returns=int)

    await call(near)
    await stored(server, 1)
    await call(near)
    before = server.calls("mget")
    assert ([await call(near) for _ in range(10)], server.calls("mget") - before) == ([1] * 10, 0)
    version = 2
    await near.delete("k:1")
    assert await call(near) == 2
    await stored(server, 1)
    await call(near)
    version = 3
    await other.delete("k:1")
    assert await call(near) == 2
    await anyio.sleep(1.1)
    assert await call(near) == 3
    await near.close()
    await other.close()


async def test_value_asked_for_before_an_invalidation_does_not_enter_the_first_level(server: RedisServer) -> None:
    server.command("FLUSHALL")
    cache = open_cache(f"{server.url}?deadline=8s&first_level_ttl=60s")
    await cache.set("k:1", b"1", 60)

    async def load() -> int:
        return 2

    async def call() -> int:
        return await cache.get_or_load("k:1", load, ttl_seconds=60, returns=int)

    asking = asyncio.create_task(call())
    await asyncio.sleep(0)
    await cache.delete("k:1")
    await asking
    await cache.delete("k:1")
    assert await call() == 2
    await cache.close()


async def test_threads_of_two_replicas_share_a_load(server: RedisServer) -> None:
    server.command("FLUSHALL")
    runs, may_end = list[str](), threading.Event()

    @cached(ttl=60)
    def slow() -> int:
        runs.append(threading.current_thread().name)
        may_end.wait(10)
        return 7

    calls = []
    caches = [open_cache(f"{server.url}?deadline=8s", namespace="shop") for _ in range(2)]
    for cache in caches:
        with activate_cache(cache):
            calls += [asyncio.create_task(to_thread.run_sync(slow)) for _ in range(3)]
            await anyio.sleep(0.2)
    may_end.set()
    assert ([await call for call in calls], len(runs)) == ([7] * 6, 1)
    with activate_cache(caches[1]):
        await to_thread.run_sync(slow.invalidate)
        assert await to_thread.run_sync(slow) == 7
    assert len(runs) == 2
    for cache in caches:
        await cache.close()


def test_thread_without_an_event_loop_loads(server: RedisServer) -> None:
    @cached(ttl=60)
    def square(number: int) -> int:
        return number**2

    with activate_cache(open_cache(server.url)):
        assert square(3) == 9
        square.invalidate(3)


async def test_spans_tell_of_each_step_and_of_no_key(cache: Cache) -> None:
    with captured_spans() as spans:

        @cached(ttl=60)
        async def price(item: str) -> int:
            return 5

        assert await price("s3cret") == 5
    by_name = {span.name: span for span in spans}
    assert {"cache.get", "GET", "cache.claim", "EVALSHA", "cache.load"} <= by_name.keys()
    assert by_name["GET"].parent == by_name["cache.get"].get_span_context()
    name = str((by_name["cache.get"].attributes or {})["cache.name"])
    assert name.endswith("price")
    assert all("s3cret" not in str(span.to_json()) for span in spans)


async def test_metrics_tell_hits_misses_bytes_and_time(server: RedisServer, cache: Cache) -> None:
    def hits() -> float:
        return count("faas_cache_operations_total", operation="get", outcome="hit")

    def read() -> float:
        return count("faas_cache_bytes_total", direction="read")

    def timed() -> float:
        return count("faas_cache_operation_seconds_count", operation="get")

    before = hits(), read(), timed()
    await cache.set("a", b"12345", 60)
    assert await cache.get("a") == b"12345"
    assert (hits() - before[0], read() - before[1], timed() - before[2]) == (1, 5, 1)
    assert count("faas_cache_up") == 1


async def test_half_a_surrogate_pair_in_a_key_fails_nobody(cache: Cache) -> None:
    await cache.set("k\ud800", b"1", 60)
    assert list(await asyncio.gather(cache.get("k\ud800"), cache.get("other"))) == [b"1", None]


@pytest.mark.parametrize(
    "query",
    [
        "deadline=0",
        "deadline=s3cret",
        "lease=1ms",
        "first_level_ttl=2h",
        "max_value_bytes=0",
        "size=1",
        "lease=1s&lease=2s",
    ],
)
def test_unusable_option_stops_the_start(query: str) -> None:
    with pytest.raises(SettingError) as caught:
        open_cache(f"redis://:s3cret@127.0.0.1?{query}")
    assert (caught.value.name, "s3cret" in str(caught.value)) == ("CACHE_URL", False)


def test_memory_imports_no_redis() -> None:
    code = "import sys, faasbase.caching as c; c.open_cache('memory://'); sys.exit('redis' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(BASE)}, timeout=30)

"""Redis stopped, paused, unreachable, full or with another password, in the middle of load: nobody's call fails."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from faasbase.caching import Cache, CacheError, open_cache
from faasbase.caching.guard import Guard
from faasbase.caching.redis import RedisCache
from faasbase.connections import ConnectionsError
from faasbase.secrets import use_directory
from tests.servers import RedisServer
from tests.stalling import StallingProxy

pytestmark = pytest.mark.anyio

CALLERS, KEYS = 16, 8
DEADLINE_SECONDS = 0.25
MARGIN_SECONDS = 0.05
"""For a machine that others use too: what an event loop of many callers may be late by."""


@dataclass
class Setup:
    """A server with a password, behind a proxy, and what can be done to both."""

    server: RedisServer
    proxy: StallingProxy
    secret: Path

    def change_password(self) -> None:
        self.server.set_passwords("another")
        self.server.hang_up()

    def tell_password(self) -> None:
        self.secret.write_text("another")

    def black_hole(self) -> None:
        self.proxy.black_hole = True

    def open_up(self) -> None:
        self.proxy.black_hole = False

    @property
    def url(self) -> str:
        return f"redis://app@127.0.0.1:{self.proxy.port}?password_secret=cache&lease=1s"


@dataclass
class Load:
    """Callers that ask all the time, and how each of their calls went."""

    cache: Cache
    loads: int = 0
    errors: list[BaseException] = field(default_factory=list)
    calls: list[tuple[float, float]] = field(default_factory=list)
    """When each call began, and how long it took."""
    late: list[tuple[float, float]] = field(default_factory=list)

    async def caller(self, number: int) -> None:
        async def loader() -> int:
            self.loads += 1
            return 7

        while True:
            started = time.monotonic()
            try:
                key = f"numbers:{number % KEYS}"
                assert await self.cache.get_or_load(key, loader, ttl_seconds=0.5, returns=int) == 7
            except Exception as exc:
                self.errors.append(exc)
            self.calls.append((started, time.monotonic() - started))
            await asyncio.sleep(0.005)

    def p99_since(self, since: float) -> float:
        """Return what 99 % of the calls since then took at most."""
        seconds = sorted(took for started, took in self.calls if started >= since)
        return seconds[int(len(seconds) * 0.99)]

    async def watch(self) -> None:
        """Measure by how much the event loop is late on this machine, whatever the calls do."""
        while True:
            started = time.monotonic()
            await asyncio.sleep(0.005)
            self.late.append((started, time.monotonic() - started - 0.005))

    def lateness_since(self, since: float) -> float:
        return sorted(late for started, late in self.late if started >= since)[-1]

    def worst_since(self, since: float) -> float:
        return max(took for started, took in self.calls if started >= since)

    async def hits(self) -> bool:
        """Tell whether most calls of the next moment are hits."""
        loads, calls = self.loads, len(self.calls)
        await asyncio.sleep(0.3)
        return self.loads - loads < (len(self.calls) - calls) / 4


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "cache").write_text("s3cret")
    before = use_directory(secrets)
    with RedisServer(tmp_path / "redis", password="s3cret") as server:
        async with StallingProxy(server.address) as proxy:
            yield Setup(server, proxy, secrets / "cache")
    use_directory(before)


@pytest.fixture
async def load(setup: Setup) -> AsyncIterator[Load]:
    cache = open_cache(setup.url, namespace="outages")
    running = Load(cache)
    async with asyncio.TaskGroup() as group:
        callers = [group.create_task(running.caller(number)) for number in range(CALLERS)]
        callers.append(group.create_task(running.watch()))
        await asyncio.sleep(0.5)
        yield running
        for caller in callers:
            caller.cancel()
    await cache.close()


OUTAGES: dict[str, tuple[Callable[[Setup], object], Callable[[Setup], object]]] = {
    "stopped": (lambda setup: setup.server.stop(), lambda setup: setup.server.start()),
    "paused": (lambda setup: setup.server.pause(), lambda setup: setup.server.resume()),
    "black hole": (Setup.black_hole, Setup.open_up),
    "full": (lambda setup: setup.server.fill_up(), lambda setup: setup.server.make_room()),
    "another password": (Setup.change_password, Setup.tell_password),
}


@pytest.mark.parametrize("outage", OUTAGES)
async def test_outage_fails_no_call_and_hits_return_by_themselves(
    outage: str, setup: Setup, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    begin, end = OUTAGES[outage]
    with caplog.at_level(logging.INFO, "faasbase.caching"):
        assert await load.hits()
        # A full server is asked as ever, and a miss asks it twice.
        usual = 2 * load.p99_since(0) if outage == "full" else 0.0
        began = time.monotonic()
        await asyncio.to_thread(begin, setup)
        await asyncio.sleep(1.0)
        left_alone = time.monotonic()
        await asyncio.sleep(1.5)
        assert load.worst_since(began) < DEADLINE_SECONDS + MARGIN_SECONDS
        assert load.p99_since(left_alone) < 0.005 + usual + 2 * load.lateness_since(left_alone)
        await asyncio.to_thread(end, setup)
        with anyio.fail_after(15):
            while not await load.hits():
                pass
        assert load.worst_since(began) < DEADLINE_SECONDS + MARGIN_SECONDS
    assert load.errors == []
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"], caplog.text
    assert "s3cret" not in caplog.text
    assert str(setup.proxy.port) not in caplog.text


async def test_invalidation_during_an_outage_is_made_up_for(setup: Setup) -> None:
    cache = open_cache(setup.url)
    await cache.set("a:1", b"1", 60)
    await cache.set("a:2", b"1", 60)
    setup.server.pause()
    await cache.delete("a:1")
    await cache.set("a:2", b"2", 60)
    setup.server.resume()
    assert (await cache.get("a:1"), await cache.get("a:2")) == (None, None)
    with anyio.fail_after(10):
        while await asyncio.to_thread(setup.server.command, "DBSIZE") != "0":  # noqa: ASYNC110 - a server tells nobody
            await anyio.sleep(0.05)
    await cache.close()


async def test_callers_share_a_load_while_the_server_is_full(setup: Setup) -> None:
    cache = open_cache(f"{setup.url}&deadline=8s")
    setup.server.fill_up()
    may_end, loads = asyncio.Event(), 0

    async def loader() -> int:
        nonlocal loads
        loads += 1
        await may_end.wait()
        return 7

    calls = []
    for _ in range(4):
        calls.append(asyncio.create_task(cache.get_or_load("k:1", loader, ttl_seconds=60, returns=int)))
        await asyncio.sleep(0.05)
    may_end.set()
    assert (await asyncio.gather(*calls), loads) == ([7] * 4, 1)
    await cache.close()


async def test_invalidation_that_went_unheard_is_not_settled_by_an_earlier_one(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faasbase.caching.guard.OPEN_SECONDS", 60.0)
    cache = RedisCache.from_url(f"{setup.url}&deadline=5s")
    await cache.set("k", b"1", 60)
    setup.proxy.delay_seconds = 0.2
    first, second = (asyncio.create_task(cache.delete("k")) for _ in range(2))
    await asyncio.sleep(0.05)
    second.cancel()
    await first
    setup.server.command("SET", "k", "2")
    assert await cache.get("k") is None
    await cache.close()


async def test_no_error_of_a_try_ends_the_tries(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("faasbase.caching.guard.OPEN_SECONDS", 0.01)
    tries = 0

    async def attempt() -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise KeyError("unforeseen")

    guard = Guard(attempt)
    for began in (float("inf"),) * 3:
        guard.failed(ConnectionsError("gone"), began)
    with pytest.raises(CacheError):
        guard.check()
    with anyio.fail_after(5):
        while tries < 4:  # noqa: ASYNC110 - a guard tells nobody
            await anyio.sleep(0.01)
    guard.check()
    assert [record.levelname for record in caplog.records if record.exc_info] == ["ERROR"]
    await guard.close()


async def test_server_that_is_left_alone_during_a_try_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("faasbase.caching.guard.OPEN_SECONDS", 0.01)
    tries = 0

    async def attempt() -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            for _ in range(3):
                guard.failed(ConnectionsError("gone"), float("inf"))

    guard = Guard(attempt)
    guard.try_again_later()
    with anyio.fail_after(5):
        while tries < 2:  # noqa: ASYNC110 - a guard tells nobody
            await anyio.sleep(0.01)
    guard.check()
    await guard.close()


async def test_rotation_under_load_is_not_noticed(setup: Setup, load: Load, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "faasbase.caching"):
        loads = load.loads
        await asyncio.to_thread(setup.server.set_passwords, "s3cret", "another")
        setup.secret.write_text("another")
        await asyncio.sleep(1.5)
        await asyncio.to_thread(setup.change_password)
        assert await load.hits()
    assert (load.errors, caplog.messages) == ([], [])
    # Each key's time was over a few times; without the cache it would have been hundreds.
    assert load.loads - loads < KEYS * 12


@pytest.fixture
def running(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        yield server


async def test_foreign_value_is_a_miss_and_is_replaced(running: RedisServer) -> None:
    cache = open_cache(f"{running.url}?deadline=8s")

    runs: list[str] = []

    async def load() -> int:
        runs.append(key)
        return 7

    running.command("SET", "k:text", "no JSON")
    running.command("SET", "k:bytes", b"\x80\x00!")
    running.command("SET", "k:absent", "!broken")
    running.command("RPUSH", "k:list", "1")
    keys = ("k:text", "k:bytes", "k:absent", "k:list")
    for key in keys:
        assert await cache.get_or_load(key, load, ttl_seconds=60, returns=int) == 7
    with anyio.fail_after(10):
        while {running.command("TYPE", key) for key in keys} != {"string"}:  # noqa: ASYNC110 - a server tells nobody
            await anyio.sleep(0.02)
    for key in keys:
        assert await cache.get_or_load(key, load, ttl_seconds=60, returns=int) == 7
    assert runs == list(keys)
    await cache.close()

"""Records that do not answer cost a few calls their wait, and no more: the others are refused at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest
from prometheus_client import REGISTRY

from faasbase import Problem, idempotent
from faasbase.idempotency import Ledger, activate_ledger, open_ledger
from faasbase.idempotency.errors import LeftAloneError, RecordsError
from faasbase.idempotency.guard import Guard
from faasbase.settings import Settings
from tests.servers import RedisServer
from tests.stalling import StallingProxy

pytestmark = pytest.mark.anyio

DEADLINE_SECONDS = 0.5
AT_ONCE_SECONDS = 0.05

Handle = Callable[[str], Awaitable[int]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
async def proxy(server: RedisServer) -> AsyncIterator[StallingProxy]:
    async with StallingProxy(server.address) as standing:
        yield standing


@pytest.fixture
async def ledger(server: RedisServer, proxy: StallingProxy) -> AsyncIterator[Ledger]:
    server.command("FLUSHALL")
    url = f"redis://127.0.0.1:{proxy.port}?deadline={round(DEADLINE_SECONDS * 1000)}ms"
    opened = open_ledger(Settings(idempotency_url=url))
    assert opened is not None
    with activate_ledger(opened):
        yield opened
    await opened.close()


@pytest.fixture
def ran() -> list[str]:
    return []


@pytest.fixture
async def handle(ledger: Ledger, ran: list[str]) -> Handle:
    @idempotent(key="key")
    async def handle(key: str) -> int:
        ran.append(key)
        return len(ran)

    await handle("warm")
    return handle


async def refused(handle: Handle, key: str) -> float:
    """Return the seconds that it took to refuse the call."""
    began = time.monotonic()
    with pytest.raises(Problem) as problem:
        await handle(key)
    assert (problem.value.status, problem.value.headers) == (503, {"Retry-After": "2"})
    return time.monotonic() - began


def has_waited(seconds: float) -> bool:
    return seconds > 0.9 * DEADLINE_SECONDS


async def answered(handle: Handle, key: str) -> int:
    """Repeat the call until the records answer."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await handle(key)
            except Problem:
                await asyncio.sleep(0.05)


def state_changes(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.levelname for r in caplog.records if r.name == "faasbase.idempotency.guard"]


async def test_calls_are_refused_at_once_until_the_records_answer(
    proxy: StallingProxy, handle: Handle, ran: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    proxy.black_hole = True
    with caplog.at_level(logging.INFO):
        waits = [await refused(handle, "canary-key") for _ in range(2)]
        assert all(map(has_waited, waits))
        waits = [await refused(handle, f"k-{n}") for n in range(20)]
        # The machine may be busy with something else for a moment.
        assert sorted(waits)[-3] < AT_ONCE_SECONDS
        assert REGISTRY.get_sample_value("faas_idempotent_records_up") == 0
        assert state_changes(caplog) == ["WARNING"]
        proxy.black_hole = False
        assert await answered(handle, "canary-key") == 2
        assert state_changes(caplog) == ["WARNING", "INFO"]
    assert REGISTRY.get_sample_value("faas_idempotent_records_up") == 1
    assert "canary-key" not in caplog.text
    assert ran == ["warm", "canary-key"]


async def test_one_call_is_the_try_and_the_others_do_not_wait(
    proxy: StallingProxy, handle: Handle, ran: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    proxy.black_hole = True
    for _ in range(2):
        await refused(handle, "k")
    for _ in range(2):
        await asyncio.sleep(1.05)
        waits = await asyncio.gather(*(refused(handle, f"k-{n}") for n in range(20)))
        assert len(list(filter(has_waited, waits))) == 1
    assert state_changes(caplog) == ["WARNING"]
    assert ran == ["warm"]


async def test_try_whose_caller_goes_away_is_followed_by_another(proxy: StallingProxy, handle: Handle) -> None:
    proxy.black_hole = True
    for _ in range(2):
        await refused(handle, "k")
    await asyncio.sleep(1.05)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(handle("gone"), DEADLINE_SECONDS / 5)
    assert not has_waited(await refused(handle, "k"))
    proxy.black_hole = False
    assert await answered(handle, "k") == 2


async def test_moment_that_many_calls_wait_through_is_one_failure(proxy: StallingProxy, handle: Handle) -> None:
    proxy.black_hole = True
    await asyncio.gather(*(refused(handle, f"k-{n}") for n in range(20)))
    proxy.black_hole = False
    assert await handle("next") == 2


async def test_full_server_still_tells_what_was_done(
    server: RedisServer, handle: Handle, ran: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        server.fill_up()
        for number in range(5):
            await refused(handle, f"k-{number}")
            assert await handle("warm") == 1
        assert REGISTRY.get_sample_value("faas_idempotent_records_writable") == 0
        server.make_room()
        assert await handle("k") == 2
    assert REGISTRY.get_sample_value("faas_idempotent_records_writable") == 1
    assert state_changes(caplog) == ["WARNING", "INFO"]
    assert ran == ["warm", "k"]


def test_try_that_hangs_is_waited_for_by_nobody_else() -> None:
    """However long that is: a deadline may be longer than the pause between two tries."""
    now = 0.0
    guard = Guard(clock=lambda: now)
    for _ in range(2):
        now += 1.0
        with pytest.raises(RecordsError, match="silence"), guard.asking():
            raise RecordsError("silence")
    now += 1.1
    with guard.asking():
        now += 30.0
        with pytest.raises(LeftAloneError), guard.asking():
            pass
    with guard.asking():
        pass

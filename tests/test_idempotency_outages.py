"""What becomes of idempotent handlers when their records go away, at each step of a run."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from faasbase import Problem, current_operation, idempotent
from faasbase.idempotency import EffectError, Ledger, OperationLostError, activate_ledger, open_ledger
from faasbase.settings import Settings
from tests.servers import RedisServer

pytestmark = pytest.mark.anyio


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as running:
        yield running


@pytest.fixture
async def ledger(server: RedisServer) -> AsyncIterator[Ledger]:
    opened = open_ledger(Settings(idempotency_url=f"{server.url}?deadline=1s"))
    assert opened is not None
    with activate_ledger(opened):
        yield opened
    await opened.close()


class Work:
    """A handler's work: counted, and under way until it may end."""

    def __init__(self) -> None:
        self.count = 0
        self.began, self.may_end = asyncio.Event(), asyncio.Event()

    def handler(self, in_progress: str = "60s") -> Callable[[str], Coroutine[Any, Any, int]]:
        @idempotent(key="key", in_progress=in_progress)
        async def handle(key: str) -> int:
            self.count += 1
            self.began.set()
            await self.may_end.wait()
            return self.count

        return handle


@pytest.fixture
def work() -> Work:
    return Work()


async def replayed(handle: Callable[[str], Coroutine[Any, Any, int]], key: str) -> int:
    """Repeat the call until the records answer."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await handle(key)
            except Problem as problem:
                if problem.status not in (409, 503):
                    raise
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("outage", [RedisServer.stop, RedisServer.pause, RedisServer.fill_up])
async def test_nothing_begins(
    server: RedisServer, ledger: Ledger, work: Work, outage: Callable[[RedisServer], None]
) -> None:
    outage(server)
    with pytest.raises(Problem) as refused:
        await work.handler()("k")
    assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "2"})
    assert work.count == 0


async def test_begin_whose_reply_is_lost_does_not_block_the_next(
    server: RedisServer, ledger: Ledger, work: Work
) -> None:
    handle = work.handler()
    work.may_end.set()
    await handle("warm")
    server.pause()
    with pytest.raises(Problem, match="asked"):
        await handle("k")
    server.resume()
    assert await replayed(handle, "k") == 2


async def test_result_is_answered_at_once_and_recorded_as_soon_as_possible(
    server: RedisServer, ledger: Ledger, work: Work, caplog: pytest.LogCaptureFixture
) -> None:
    handle = work.handler()
    first = asyncio.create_task(handle("canary-key"))
    await work.began.wait()
    server.pause()
    work.may_end.set()
    with caplog.at_level(logging.INFO):
        assert await first == 1
    assert len([r for r in caplog.records if r.name.startswith("faasbase.idempotency")]) == 1
    assert "canary-key" not in caplog.text
    server.resume()
    assert await replayed(handle, "canary-key") == 1
    assert work.count == 1


@pytest.mark.parametrize("room", [0, 10])
async def test_run_that_ended_is_answered_however_many_were_refused(
    server: RedisServer, ledger: Ledger, work: Work, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr("faasbase.owned.MAX_TASKS", room)
    handle = work.handler()
    first = asyncio.create_task(handle("k"))
    await work.began.wait()
    server.stop()
    refused = await asyncio.gather(*(handle(f"k-{n}") for n in range(2 * room)), return_exceptions=True)
    assert all(isinstance(error, Problem) and error.status == 503 for error in refused)
    work.may_end.set()
    assert await first == 1


async def test_server_that_lost_its_data_is_told_again(server: RedisServer, ledger: Ledger, work: Work) -> None:
    handle = work.handler("1500ms")
    first = asyncio.create_task(handle("k"))
    await work.began.wait()
    server.command("FLUSHALL")
    await asyncio.sleep(1.0)
    with pytest.raises(Problem, match="handled now"):
        await handle("k")
    server.command("FLUSHALL")
    work.may_end.set()
    assert await first == 1
    assert await handle("k") == work.count == 1


async def test_run_that_cannot_renew_its_lease_is_ended_with_it(
    server: RedisServer, ledger: Ledger, work: Work
) -> None:
    handle = work.handler("1500ms")
    first = asyncio.create_task(handle("k"))
    await work.began.wait()
    server.stop()
    with pytest.raises(OperationLostError) as lost:
        async with asyncio.timeout(10):
            await first
    assert lost.value.status == 503
    server.start()
    work.may_end.set()
    assert await replayed(handle, "k") == 2


async def test_effect_of_a_run_that_was_replaced_is_refused(server: RedisServer, ledger: Ledger) -> None:
    taken = 0

    @idempotent(key="key")
    async def handle(key: str) -> int:
        nonlocal taken
        operation = current_operation()
        assert operation is not None
        if not taken:
            taken += 1
            record = server.command("EVAL", "return redis.call('KEYS', '*idempotent*')[1]", 0)
            server.command("HSET", record, "token", "another")
            for check in (operation.check(), operation.once("a", "return redis.call('INCR', KEYS[1])", ["a"])):
                with pytest.raises(OperationLostError):
                    await check
        return 1

    with pytest.raises(OperationLostError):
        await handle("k")
    assert server.command("EXISTS", "a") == "0"


async def test_steps_of_a_run_are_told_apart_and_failures_have_a_code(server: RedisServer, ledger: Ledger) -> None:
    count = "return redis.call('INCR', KEYS[1])"
    tries: list[list[object]] = []

    @idempotent(key="key")
    async def handle(key: str) -> int:
        operation = current_operation()
        assert operation is not None
        replies = [await operation.once("one", count, ["n"]), await operation.once("two", count, ["n"])]
        texts = await operation.once("text", "return {ARGV[1], 7, false}", [], [b"\xff\x00"])
        nothing = await operation.once("nothing", "return nil")
        tries.append([*replies, texts, nothing])
        with pytest.raises(ValueError, match="one"):
            await operation.once("one", count, ["n"])
        with pytest.raises(EffectError):
            await operation.once("broken", "return redis.call('NOSUCH')")
        if len(tries) == 1:
            raise RuntimeError("again")
        return 1

    with pytest.raises(RuntimeError, match="again"):
        await handle("k")
    await handle("k")
    assert tries[0] == tries[1] == [1, 2, [b"\xff\x00", 7, None], None]


async def test_run_that_outlived_its_lease_makes_no_record_of_its_own(server: RedisServer, ledger: Ledger) -> None:
    """What is gone by then may have been the record of another run, which was kept for its time."""
    threads: list[int] = []

    @idempotent(key="key", in_progress="300ms")
    def handle(key: str) -> int:
        threads.append(1)
        if len(threads) == 1:
            server.pause()
            time.sleep(1.0)
            server.resume()
            server.command("FLUSHALL")
        return len(threads)

    with pytest.raises(OperationLostError):
        await asyncio.to_thread(handle, "k")
    assert await asyncio.to_thread(handle, "k") == 2

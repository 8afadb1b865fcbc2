"""Racers, crashes and redeliveries over one Redis: whatever happens, one effect and one result for each key."""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pytest

from faasbase import Problem, current_operation, idempotent
from faasbase.connections import redis_connections
from faasbase.idempotency import Ledger, RecordsError, decorator, open_ledger
from faasbase.idempotency.backend import Begun, Claim, Done, RecordBackend, Running
from faasbase.settings import Settings
from tests.servers import RedisServer

pytestmark = pytest.mark.anyio

T = TypeVar("T")

RUNS = 2_500
SEEDS = (11, 12, 13, 14)
AT_ONCE = 300
"""Keys under way at a time: with more, turns of the loop outlast leases, and nobody gets through."""
LEASE_SECONDS = 0.5
ATTEMPTS = 200

DEBIT = """
local left = tonumber(redis.call('GET', KEYS[1]) or ARGV[1])
if left < 60 then return 'refused' end
redis.call('SET', KEYS[1], left - 60)
redis.call('INCR', KEYS[2])
return 'paid'
"""
"""An account of 100 pays once; the second time there would not be enough."""


class DiedError(BaseException):
    """The process is gone: nothing of it does anything any more."""


@dataclass
class Unlucky:
    """The records as a process sees them that dies, is paused or loses replies, at any step."""

    records: RecordBackend
    rng: random.Random
    dead: bool = False
    renews: bool = True
    deadline_seconds: float = 30.0
    max_result_bytes: int = 10_000

    async def begin(self, claim: Claim) -> Begun:
        return await self._step(lambda: self.records.begin(claim))

    async def renew(self, claim: Claim, fence: int) -> bool:
        if self.dead or not self.renews:
            raise RecordsError("not renewed")
        return await self.records.renew(claim, fence)

    async def finish(self, claim: Claim, fence: int, result: bytes) -> Done | Running | None:
        return await self._step(lambda: self.records.finish(claim, fence, result))

    async def release(self, claim: Claim) -> None:
        await self._step(lambda: self.records.release(claim))

    async def once(self, claim: Claim, step: str, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        return await self._step(lambda: self.records.once(claim, step, script, keys, args))

    async def close(self) -> None: ...

    async def _step(self, step: Callable[[], Awaitable[T]]) -> T:
        self._perhaps_die()
        if self.rng.random() < 0.03:
            # Paused for longer than its lease, without its limit's noticing.
            self.renews = False
            await asyncio.shield(asyncio.sleep(LEASE_SECONDS * 1.2))
        reply = await step()
        self._perhaps_die()
        if self.rng.random() < 0.05:
            raise RecordsError("the reply is lost")
        return reply

    def _perhaps_die(self) -> None:
        self.dead = self.dead or self.rng.random() < 0.04
        if self.dead:
            raise DiedError


@dataclass
class Account:
    """What happened under one key."""

    answers: list[str] = field(default_factory=list)
    fences: list[int] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)


chosen: ContextVar[Ledger] = ContextVar("chosen")
accounts: dict[str, Account] = defaultdict(Account)


@idempotent(key="key", in_progress=LEASE_SECONDS, fingerprint=lambda key, seed: key)
async def pay(key: str, seed: int) -> str:
    rng, operation = random.Random(seed), current_operation()
    assert operation is not None
    accounts[key].fences.append(operation.fence)
    accounts[key].ids.add(operation.id)
    await asyncio.sleep(rng.random() * 0.02)
    if rng.random() < 0.05:
        raise RuntimeError("crash before the effect")
    paid = await operation.once("debit", DEBIT, [f"account:{key}", f"paid:{key}"], [100])
    await asyncio.sleep(rng.random() * 0.02)
    if rng.random() < 0.05:
        raise RuntimeError("crash behind the effect")
    # Differs from run to run, so that two results for one key would be seen.
    return f"{paid.decode()} {operation.fence}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
async def ledger(server: RedisServer) -> AsyncIterator[Ledger]:
    opened = open_ledger(Settings(idempotency_url=f"{server.url}?deadline=30s"))
    assert opened is not None
    yield opened
    await opened.close()


async def racer(ledger: Ledger, key: str, seed: int) -> None:
    """Deliver *key* again and again until there is an answer: each time by a process that may die."""
    rng = random.Random(seed)
    for attempt in range(ATTEMPTS):
        process = Ledger(Unlucky(ledger.backend, rng), "races")
        call = asyncio.create_task(delivered(process, key, rng.randrange(2**32)))
        try:
            if rng.random() < 0.1:
                await asyncio.wait({call}, timeout=rng.random() * 0.1)
                call.cancel()
            accounts[key].answers.append(await call)
            return
        except (DiedError, asyncio.CancelledError, RuntimeError, Problem):
            await asyncio.sleep(LEASE_SECONDS * rng.random() * min(attempt, 3) / 3)
        finally:
            await process.tasks.close()
    raise AssertionError(f"no answer for {key}")


async def delivered(process: Ledger, key: str, seed: int) -> str:
    chosen.set(process)
    return await pay(key, seed)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", SEEDS)
async def test_racers_crashes_and_redeliveries_have_one_effect_and_one_result(
    server: RedisServer, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    # Each delivery is by a process of its own, which all are in this one.
    monkeypatch.setattr(decorator, "current_ledger", chosen.get)
    rng, room = random.Random(seed), asyncio.Semaphore(AT_ONCE)

    async def race(key: str, seeds: tuple[int, int]) -> None:
        async with room:
            await asyncio.gather(*(racer(ledger, key, one) for one in seeds))

    accounts.clear()
    keys = [f"order-{seed}-{number}" for number in range(RUNS)]
    await asyncio.gather(*(race(key, (rng.randrange(2**32), rng.randrange(2**32))) for key in keys))
    assert len(accounts) == RUNS
    connections = redis_connections(server.url)
    for key, account in accounts.items():
        paid = await connections.execute("GET", f"paid:{key}", deadline_seconds=30)
        assert paid == b"1", key
        assert len(account.answers) == 2
        assert len(set(account.answers)) == 1, key
        assert account.answers[0].startswith("paid ")
        assert len(account.ids) == 1
        assert len(set(account.fences)) == len(account.fences), key
    await connections.close()
    runs = sum(len(account.fences) for account in accounts.values())
    # Else nothing was taken over, repeated or lost, and nothing of the above says anything.
    assert runs > RUNS * 1.2

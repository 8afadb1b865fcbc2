"""The order-worker's stock: an order reserves once, whoever races for it and wherever the process has died."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
import time
from collections.abc import Awaitable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faasbase import Problem
from faasbase.errors import SettingError
from tests.servers import RedisServer
from tests.staging import FUNCTIONS

pytestmark = pytest.mark.anyio

SKUS = ("apple", "pear", "plum")
MOST_TURNS = 40
"""More turns of the loop than a reservation takes: a process dies before it, in it, or after it."""

Wanted = dict[str, int]
# Three orders of an article are more than there is of it, as often as not.
WANTED = st.dictionaries(st.sampled_from(SKUS), st.integers(1, 60), min_size=1)
ORDERS = st.lists(WANTED, min_size=1, max_size=6)
CRASHES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, MOST_TURNS)), max_size=6)


@pytest.fixture(scope="module")
def stock() -> ModuleType:
    """Import stock.py by itself, which needs no other module of the function."""
    spec = importlib.util.spec_from_file_location("order_worker_stock", FUNCTIONS / "order-worker" / "stock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Give a Redis of these tests' own."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


async def died(running: Awaitable[Any], turns: int) -> None:
    """Run it for so many turns of the loop and no further, as a process that is killed there."""
    task = asyncio.ensure_future(running)
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def taken(orders: list[Wanted], answers: list[list[str]]) -> dict[str, int]:
    """Return how much of each article the orders have that miss nothing."""
    served = [wanted for wanted, missing in zip(orders, answers, strict=True) if not missing]
    return {sku: sum(wanted.get(sku, 0) for wanted in served) for sku in SKUS}


@given(orders=ORDERS, crashes=CRASHES)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_racing_and_crashing_replicas_reserve_once(
    orders: list[Wanted], crashes: list[tuple[int, int]], stock: ModuleType, redis: RedisServer
) -> None:
    """Every answer is that of the first run, what is left adds up, and nothing is below zero."""
    redis.command("FLUSHALL")
    environ = {"STOCK_URL": redis.url}
    async with stock.open_stock(environ) as one, stock.open_stock(environ) as other:
        async with stock.open_stock(environ) as doomed:
            for index, turns in crashes:
                await died(doomed.reserve(f"o-{index}", orders[index % len(orders)]), turns)
        # An order that was crashed on has the same id and wants the same.
        numbered = [orders[index % len(orders)] for index in range(max(len(orders), 6))]
        first, second = await asyncio.gather(
            asyncio.gather(*(one.reserve(f"o-{index}", wanted) for index, wanted in enumerate(numbered))),
            asyncio.gather(*(other.reserve(f"o-{index}", wanted) for index, wanted in enumerate(numbered))),
        )
        again = [await other.reserve(f"o-{index}", wanted) for index, wanted in enumerate(numbered)]
        left = {sku: await one.left(sku) for sku in SKUS}
    assert first == second == again
    assert left == {sku: stock.INITIAL_STOCK - count for sku, count in taken(numbered, first).items()}
    assert min(left.values()) >= 0
    # The stock never grows: what an order missed then is missing still.
    assert all(wanted[sku] > left[sku] for wanted, missing in zip(numbered, first, strict=True) for sku in missing)


@given(orders=st.lists(st.tuples(st.integers(0, 8), WANTED), max_size=20))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_memory_and_redis_answer_the_same(
    orders: list[tuple[int, Wanted]], stock: ModuleType, redis: RedisServer
) -> None:
    """Whatever is asked, orders that are repeated with something else too."""
    redis.command("FLUSHALL")
    async with stock.open_stock({}) as memory, stock.open_stock({"STOCK_URL": redis.url}) as shared:
        for number, wanted in orders:
            assert sorted(await shared.reserve(f"{number}", wanted)) == sorted(
                await memory.reserve(f"{number}", wanted)
            )
        for sku in SKUS:
            assert await shared.left(sku) == await memory.left(sku)


async def test_order_that_is_short_of_one_article_takes_none(stock: ModuleType, redis: RedisServer) -> None:
    redis.command("FLUSHALL")
    async with stock.open_stock({"STOCK_URL": redis.url}) as shared:
        assert await shared.reserve("o-1", {"apple": 60, "pear": 1}) == []
        assert await shared.reserve("o-2", {"apple": 41, "pear": 101, "plum": 1}) == ["apple", "pear"]
        assert [await shared.left(sku) for sku in SKUS] == [40, 99, 100]


async def test_stock_that_cannot_be_asked_is_tried_again(stock: ModuleType, tmp_path: Path) -> None:
    """503, which as the outcome of an event is a repeat; once Redis is back the same call succeeds."""
    with RedisServer(tmp_path / "redis") as server:
        async with stock.open_stock({"STOCK_URL": server.url}) as shared:
            server.stop()
            for asking in (shared.reserve("o-1", {"apple": 1}), shared.left("apple")):
                with pytest.raises(Problem) as failed:
                    await asking
                assert failed.value.status == 503
            server.start()
            assert await asked_again(shared) == []


async def asked_again(shared: Any) -> object:
    """Return the answer, once there is one."""
    until = time.monotonic() + 5.0
    while True:
        try:
            return await shared.reserve("o-1", {"apple": 1})
        except Problem:
            assert time.monotonic() < until
            await asyncio.sleep(0.05)


async def test_url_that_cannot_be_used_stops_the_start(stock: ModuleType) -> None:
    with pytest.raises(SettingError, match="STOCK_URL"):
        async with stock.open_stock({"STOCK_URL": "sqlite:///canary"}):
            pass

"""`@cached` as functions use it, on ``async def`` and on ``def``."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest
from anyio import to_thread
from pydantic import BaseModel, Field

from faasbase.caching import activate_cache, cached, open_cache
from tests.servers import RedisServer

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("cache")]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(params=["memory", "redis"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Give every test an empty cache."""
    url = "memory://"
    if request.param == "redis":
        running: RedisServer = request.getfixturevalue("server")
        running.command("FLUSHALL")
        url = f"{running.url}?deadline=8s"
    opened = open_cache(url)
    with activate_cache(opened):
        yield
    await opened.close()


class Price(BaseModel):
    item: str
    cents: int | None


async def test_none_is_a_value() -> None:
    runs = list[str]()

    @cached(ttl=60)
    async def missing(item: str) -> Price | None:
        runs.append(item)
        return None

    assert await missing("ink") is None
    assert await missing("ink") is None
    assert runs == ["ink"]


async def test_callers_do_not_share_a_mutable_result() -> None:
    @cached(ttl=60)
    async def names() -> list[str]:
        await anyio.sleep(0.01)
        return ["a"]

    first, second = await asyncio.gather(names(), names())
    first.append("b")
    assert (second, await names()) == (["a"], ["a"])


async def test_model_comes_back_as_the_annotated_type() -> None:
    @cached(ttl="1m")
    async def price(item: str) -> Price:
        return Price(item=item, cents=5)

    await price("ink")
    assert await price("ink") == Price(item="ink", cents=5)


async def test_bytes_of_any_value_survive() -> None:
    @cached(ttl=60)
    async def blob() -> dict[str, bytes]:
        return {"a": bytes(range(256))}

    await blob()
    assert await blob() == {"a": bytes(range(256))}


async def test_nan_and_infinity_survive() -> None:
    @cached(ttl=60)
    async def bounds() -> tuple[float, float]:
        return (math.nan, -math.inf)

    await bounds()
    low, high = await bounds()
    assert (math.isnan(low), high) == (True, -math.inf)


class Measured(BaseModel):
    number: float | str | None = None
    raw: bytes = b""
    parts: list["Measured"] = Field(default_factory=list)


class Strict(BaseModel):
    number: float


class Untold:
    """A value that JSON knows nothing of."""


UNFIT: list[tuple[object, Any]] = [
    (Strict, Strict(number=math.nan)),
    (Measured, Measured(number=math.nan)),
    (Measured, Measured(parts=[Measured(number=1), Measured(number=math.inf)])),
    (Measured, Measured(raw=b"\xff\xfe")),
    (dict[str, Measured], {"a": Measured(raw=b"\xff")}),
    (int, "seven"),
    (str, "\ud800"),
    (object, Untold()),
    (list[object], [Untold()]),
    (Strict, {"number": 1.0}),
]


@pytest.mark.parametrize(("returns", "value"), UNFIT)
async def test_value_that_json_cannot_carry_is_returned_and_not_cached(
    returns: object, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    """A cache adds no error: the function works as without it, and one line says why it runs each time."""
    runs = list[int]()

    @cached(ttl=60)
    async def odd(number: int) -> returns:  # type: ignore[valid-type]
        runs.append(number)
        await anyio.sleep(0.01)
        return value

    @cached(ttl=60)
    def odd_too() -> returns:  # type: ignore[valid-type]
        runs.append(0)
        return value

    with caplog.at_level(logging.WARNING, "faasbase"):
        assert await odd(1) is value
        assert await odd(2) is value
        first, second = await asyncio.gather(odd(3), odd(3))
        assert (first is value, second is value) == (True, True)
        assert runs == [1, 2, 3]
        assert await to_thread.run_sync(odd_too) is value
        assert await to_thread.run_sync(odd_too) is value
    assert runs == [1, 2, 3, 0, 0]
    lines = [line for line in caplog.messages if "odd" in line]
    assert (len(lines), len([line for line in lines if "odd_too" in line])) == (2, 1)


async def test_none_of_a_model_is_cached_as_ever() -> None:
    runs = list[int]()

    @cached(ttl=60)
    async def measured() -> dict[int, Measured]:
        runs.append(1)
        return {7: Measured(number=None, parts=[Measured(number="null")])}

    assert await measured() == await measured()
    assert runs == [1]


async def test_arguments_of_all_kinds_tell_entries_apart() -> None:
    @cached(ttl=60)
    async def shown(first: object, second: object = 0, *rest: object, **named: object) -> str:
        return repr((first, second, rest, named))

    calls = [(1,), ("1",), (1.5,), (True,), (None,), (b"1",), ([1, 2],), ((1, 2),), ({1: 2},), ({"1": 2},), (1, 2, 3)]
    assert [await shown(*call) for call in calls] == [await shown(*call) for call in calls]
    assert len({shown.key(*call) for call in calls}) == len(calls)
    assert shown.key(1) == shown.key(first=1, second=0)
    assert shown.key({"a": 1, "b": {2, 3}}) == shown.key({"b": {3, 2}, "a": 1})


async def test_key_shows_function_and_version_and_hides_arguments() -> None:
    @cached(ttl=60, version=2)
    async def quote(customer: str) -> int:
        return 1

    name, version, digest = quote.key("Ada").split(":")
    assert name.endswith("quote")
    assert (version, len(digest), "Ada" in quote.key("Ada")) == ("v2", 64, False)


async def test_key_function_decides_what_counts() -> None:
    runs = list[str]()

    class Session:
        user = "ada"

    @cached(ttl=60, key=lambda session, item: [session.user, item])
    async def stock(session: Session, item: str) -> int:
        runs.append(item)
        return len(runs)

    assert [await stock(Session(), "ink"), await stock(Session(), "ink"), await stock(Session(), "pen")] == [1, 1, 2]


async def test_argument_without_a_canonical_form_asks_for_a_key_function() -> None:
    @cached(ttl=60)
    async def anything(of: object) -> int:
        return 1

    with pytest.raises(TypeError, match="key="):
        await anything(object())


async def test_invalidate_forgets_the_result_of_these_arguments_only() -> None:
    runs = list[int]()

    @cached(ttl=60)
    async def square(number: int) -> int:
        runs.append(number)
        return number**2

    await square(2), await square(3)
    await square.invalidate(2)
    await square(2), await square(3)
    assert runs == [2, 3, 2]


async def test_plain_function_is_cached_in_handler_threads() -> None:
    runs = list[int]()

    @cached(ttl=60)
    def square(number: int) -> int:
        runs.append(number)
        return number**2

    assert [await to_thread.run_sync(square, 3), await to_thread.run_sync(square, 3)] == [9, 9]
    await to_thread.run_sync(square.invalidate, 3)
    await to_thread.run_sync(square, 3)
    assert runs == [3, 3]


async def test_threads_at_once_share_one_load() -> None:
    runs, may_end = list[int](), asyncio.Event()
    loop = asyncio.get_running_loop()

    @cached(ttl=60)
    def slow() -> int:
        runs.append(1)
        asyncio.run_coroutine_threadsafe(may_end.wait(), loop).result(5)
        return 7

    async with asyncio.TaskGroup() as threads:
        calls = [threads.create_task(asyncio.to_thread(slow)) for _ in range(4)]
        await anyio.sleep(0.1)
        may_end.set()
    assert ([call.result() for call in calls], runs) == ([7] * 4, [1])


async def test_error_in_a_thread_reaches_its_callers_and_is_not_cached() -> None:
    runs = list[int]()

    @cached(ttl=60)
    def failing() -> int:
        runs.append(1)
        raise TimeoutError("the load's own")

    for _ in range(2):
        with pytest.raises(TimeoutError, match="own"):
            await to_thread.run_sync(failing)
    assert len(runs) == 2

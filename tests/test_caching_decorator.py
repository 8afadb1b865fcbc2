"""`@cached` as functions use it, on ``async def`` and on ``def``."""

import asyncio
from collections.abc import AsyncIterator

import anyio
import pytest
from anyio import to_thread
from pydantic import BaseModel

from faasbase.caching import activate_cache, cached, open_cache

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("cache")]


@pytest.fixture
async def cache() -> AsyncIterator[None]:
    """Give every test an empty cache."""
    opened = open_cache("memory://")
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


async def test_result_that_is_not_what_its_annotation_says_is_a_type_error() -> None:
    @cached(ttl=60)
    async def number() -> int:
        return "seven"  # type: ignore[return-value]

    with pytest.raises(TypeError, match="annotation"):
        await number()


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

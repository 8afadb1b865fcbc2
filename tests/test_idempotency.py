"""What holds for `@idempotent`, whatever keeps its records."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import anyio.to_thread
import pytest
from fastapi import Depends, Header, Response
from pydantic import BaseModel

from faasbase import Event, Operation, Problem, current_operation, idempotent
from faasbase.caching import open_cache
from faasbase.context import CallContext, enter_call
from faasbase.errors import Reject, Retry
from faasbase.idempotency import Ledger, OperationLostError, activate_ledger, open_ledger
from faasbase.idempotency.memory import MemoryRecords
from faasbase.settings import Settings
from tests.servers import RedisServer

pytestmark = pytest.mark.anyio


class Order(BaseModel):
    id: str = "o-1"
    amount: int = 1


class Receipt(BaseModel):
    run: int
    order: str


class Odd(BaseModel):
    value: Any


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture(params=["memory", "redis"])
async def ledger(request: pytest.FixtureRequest) -> AsyncIterator[Ledger]:
    url = "memory://"
    if request.param == "redis":
        running: RedisServer = request.getfixturevalue("server")
        running.command("FLUSHALL")
        url = f"{running.url}?deadline=8s"
    opened = open_ledger(Settings(idempotency_url=url))
    assert opened is not None
    with activate_ledger(opened):
        yield opened
    await opened.close()


async def called(
    function: Callable[..., Any], *args: Any, key: str | bytes | None = "k-1", seconds: float | None = None
) -> Any:
    """Call *function* as a call of its own with *key* in its header."""
    return (await answered(function, *args, key=key, seconds=seconds))[0]


async def answered(
    function: Callable[..., Any], *args: Any, key: str | bytes | None = "k-1", seconds: float | None = None
) -> tuple[Any, list[tuple[bytes, bytes]]]:
    raw = key.encode() if isinstance(key, str) else key
    headers = {} if raw is None else {b"idempotency-key": raw}
    call = CallContext("c", None if seconds is None else time.monotonic() + seconds, raw_headers=headers)

    async def run() -> Any:
        enter_call(call)
        if asyncio.iscoroutinefunction(function):
            return await function(*args)
        return await anyio.to_thread.run_sync(copy_context().run, partial(function, *args))

    return await asyncio.create_task(run()), call.answer_headers


@dataclass
class Runs:
    """Counts runs of handlers, and holds them up until they may end."""

    count: int = 0

    def __post_init__(self) -> None:
        self.began, self.may_end = asyncio.Event(), asyncio.Event()

    async def one(self) -> int:
        self.count += 1
        self.began.set()
        await self.may_end.wait()
        return self.count


@pytest.fixture
def runs() -> Runs:
    quick = Runs()
    quick.may_end.set()
    return quick


@pytest.fixture
def held() -> Runs:
    return Runs()


def async_handler(runs: Runs, **options: Any) -> Callable[..., Any]:
    @idempotent(**options)
    async def handle(order: Order) -> Receipt:
        return Receipt(run=await runs.one(), order=order.id)

    return handle


def plain_handler(runs: Runs, **options: Any) -> Callable[..., Any]:
    @idempotent(**options)
    def handle(order: Order) -> Receipt:
        runs.count += 1
        return Receipt(run=runs.count, order=order.id)

    return handle


@pytest.fixture(params=[async_handler, plain_handler], ids=["async", "def"])
def handler(request: pytest.FixtureRequest, runs: Runs) -> Callable[..., Any]:
    made: Callable[..., Any] = request.param(runs)
    return made


async def test_repeat_gets_the_first_result_and_says_so(ledger: Ledger, handler: Callable[..., Any]) -> None:
    first, headers = await answered(handler, Order())
    assert headers == []
    again, headers = await answered(handler, Order())
    assert again == first == Receipt(run=1, order="o-1")
    assert headers == [(b"idempotency-replayed", b"true")]


async def test_other_key_runs_and_quotes_are_no_part_of_one(ledger: Ledger, handler: Callable[..., Any]) -> None:
    assert (await called(handler, Order(), key="a")).run == 1
    assert (await called(handler, Order(), key="b")).run == 2
    assert (await called(handler, Order(), key='"a"')).run == 1


async def test_other_payload_under_a_key_is_refused(ledger: Ledger, handler: Callable[..., Any]) -> None:
    await called(handler, Order(amount=1))
    with pytest.raises(Problem) as refused:
        await called(handler, Order(amount=2))
    assert refused.value.status == 422


@pytest.mark.parametrize("key", [None, b"", b"a b", b"\xe9", b"x" * 256, b'"\n"'])
async def test_missing_or_malformed_key_is_refused(ledger: Ledger, handler: Any, runs: Runs, key: bytes | None) -> None:
    with pytest.raises(Problem) as refused:
        await called(handler, Order(), key=key)
    assert refused.value.status == 400
    assert refused.value.errors[0].field == "Idempotency-Key"
    assert runs.count == 0


async def test_optional_key_may_be_missing(ledger: Ledger, runs: Runs) -> None:
    handle = async_handler(runs, required=False)
    assert (await called(handle, Order(), key=None)).run == 1
    assert (await called(handle, Order(), key=None)).run == 2
    assert (await called(handle, Order())).run == (await called(handle, Order())).run == 3


@pytest.mark.parametrize("key", ["order.id", lambda order: order.id, lambda order: (order.id, 7)])
async def test_key_can_be_taken_from_the_arguments(ledger: Ledger, runs: Runs, key: Any) -> None:
    handle = async_handler(runs, key=key)
    assert (await called(handle, Order(id="a"), key=None)).run == 1
    assert (await called(handle, Order(id="a"), key="whatever")).run == 1
    assert (await called(handle, Order(id="b"), key=None)).run == 2


async def test_in_progress_is_told_with_when_to_come_back(ledger: Ledger, held: Runs) -> None:
    handle = async_handler(held)
    first = asyncio.create_task(called(handle, Order()))
    await held.began.wait()
    with pytest.raises(Problem) as refused:
        await called(handle, Order())
    assert (refused.value.status, refused.value.headers) == (409, {"Retry-After": "5"})
    held.may_end.set()
    assert (await first).run == 1


async def test_waiting_gets_the_result_within_the_calls_own_time(ledger: Ledger, held: Runs) -> None:
    handle = async_handler(held, wait="20s")
    first = asyncio.create_task(called(handle, Order()))
    await held.began.wait()
    with pytest.raises(Problem, match="handled now"):
        await called(handle, Order(), seconds=0.3)
    waiting = asyncio.create_task(answered(handle, Order()))
    await asyncio.sleep(0.05)
    held.may_end.set()
    result, headers = await waiting
    assert result == await first
    assert headers == [(b"idempotency-replayed", b"true")]


async def test_failure_lets_the_next_run_begin_with_the_same_payload_and_id(ledger: Ledger) -> None:
    seen: list[Operation | None] = []

    @idempotent()
    async def handle(order: Order) -> int:
        seen.append(current_operation())
        if len(seen) < 3:
            raise Problem(402, "no money") if len(seen) == 1 else RuntimeError("crash")
        return len(seen)

    with pytest.raises(Problem, match="no money"):
        await called(handle, Order())
    with pytest.raises(RuntimeError, match="crash"):
        await called(handle, Order())
    with pytest.raises(Problem, match="another payload"):
        await called(handle, Order(amount=5))
    assert await called(handle, Order()) == 3
    one, two, three = (operation for operation in seen if operation)
    assert one.id == two.id == three.id
    assert one.fence < two.fence < three.fence
    assert current_operation() is None


async def test_slow_run_keeps_its_operation(ledger: Ledger, held: Runs) -> None:
    handle = async_handler(held, in_progress="600ms")
    first = asyncio.create_task(called(handle, Order()))
    await held.began.wait()
    for _ in range(4):
        await asyncio.sleep(0.4)
        with pytest.raises(Problem, match="handled now"):
            await called(handle, Order())
    held.may_end.set()
    assert (await first).run == 1
    assert (await called(handle, Order())).run == 1


async def test_cancelled_run_blocks_the_next_one_for_its_lease(ledger: Ledger, held: Runs) -> None:
    handle = async_handler(held, in_progress="1s")
    first = asyncio.create_task(called(handle, Order()))
    await held.began.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    held.may_end.set()
    with pytest.raises(Problem) as refused:
        await called(handle, Order())
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (409, "1")
    await asyncio.sleep(1.05)
    assert (await called(handle, Order())).run == 2


async def test_def_goes_on_after_its_call_and_is_recorded(ledger: Ledger, runs: Runs) -> None:
    began, may_end = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    @idempotent(wait="20s")
    def handle(order: Order) -> int:
        runs.count += 1
        loop.call_soon_threadsafe(began.set)
        asyncio.run_coroutine_threadsafe(may_end.wait(), loop).result(20)
        return runs.count

    first = asyncio.create_task(called(handle, Order()))
    await began.wait()
    repeat = asyncio.create_task(called(handle, Order()))
    may_end.set()
    assert await repeat == await first == 1


async def test_def_waits_as_long_as_it_says(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its thread gives the loop for one step comes on top of that."""
    began, may_end = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    @idempotent(wait="20s")
    def handle(order: Order) -> int:
        loop.call_soon_threadsafe(began.set)
        asyncio.run_coroutine_threadsafe(may_end.wait(), loop).result(20)
        return 1

    first = asyncio.create_task(called(handle, Order()))
    await began.wait()
    monkeypatch.setattr("faasbase.idempotency.ledger._PATIENCE_SECONDS", 0.5)
    repeat = asyncio.create_task(called(handle, Order()))
    await asyncio.sleep(1.0)
    may_end.set()
    assert await repeat == await first == 1


async def test_paused_run_answers_what_its_successor_has_found(ledger: Ledger, held: Runs) -> None:
    """A process that stood still for longer than its lease: its renewals and its limit came too late."""
    handle = async_handler(held, in_progress="300ms")
    first = asyncio.create_task(called(handle, Order()))
    await held.began.wait()
    time.sleep(0.5)  # noqa: ASYNC251 - nothing of this process gets its turn
    held.may_end.set()
    try:
        answers = await asyncio.gather(first, called(handle, Order()), return_exceptions=True)
    finally:
        later = await called(handle, Order())
    fit = [a for a in answers if isinstance(a, Receipt)]
    assert all(answer == later for answer in fit)
    others = [a for a in answers if not isinstance(a, Receipt | OperationLostError)]
    assert all(isinstance(a, Problem) and a.status == 409 for a in others)


async def test_event_is_handled_once_by_source_and_id(ledger: Ledger, runs: Runs) -> None:
    @idempotent()
    async def fulfil(event: Event[Order]) -> None:
        await runs.one()

    def event(source: str = "/shop", amount: int = 1, **rest: Any) -> Event[Order]:
        return Event[Order](specversion="1.0", id="e-1", source=source, type="order", data=Order(amount=amount), **rest)

    await called(fulfil, event(), key=None)
    await called(fulfil, event(extensions={"traceparent": "other"}), key=None)
    assert runs.count == 1
    await called(fulfil, event("/other"), key=None)
    assert runs.count == 2
    with pytest.raises(Reject):
        await called(fulfil, event(amount=9), key=None)


async def test_event_in_progress_is_to_be_sent_again(ledger: Ledger, held: Runs) -> None:
    @idempotent()
    async def fulfil(event: Event[Order]) -> None:
        await held.one()

    event = Event[Order](specversion="1.0", id="e-1", source="/shop", type="order", data=Order())
    first = asyncio.create_task(fulfil(event))
    await held.began.wait()
    with pytest.raises(Retry) as again:
        await fulfil(event)
    assert (again.value.after_seconds, again.value.counts) == (5.0, False)
    held.may_end.set()
    await first


async def test_event_whose_run_is_gone_is_to_be_sent_again_when_its_lease_is_over(held: Runs) -> None:
    """A lease that was not renewed in time belongs to nobody who lives."""

    @idempotent()
    async def fulfil(event: Event[Order]) -> None:
        await held.one()

    event = Event[Order](specversion="1.0", id="e-1", source="/shop", type="order", data=Order())
    now, pauses = 0.0, []
    with activate_ledger(Ledger(MemoryRecords(clock=lambda: now))):
        first = asyncio.create_task(fulfil(event))
        await held.began.wait()
        first.cancel()
        for now in (29.0, 31.0):  # noqa: B007 - the clock
            with pytest.raises(Retry) as again:
                await fulfil(event)
            pauses.append(again.value.after_seconds)
    assert pauses == [5.0, 29.0]


async def test_response_comes_back_with_status_headers_and_body(ledger: Ledger) -> None:
    @idempotent()
    async def handle(order: Order) -> Response | Receipt:
        return Response(b"\xff\x00", 201, {"X-Run": "1"}, "application/x-thing")

    first, again = await called(handle, Order()), await called(handle, Order())
    assert again is not first
    assert (again.status_code, again.body, again.raw_headers) == (201, b"\xff\x00", first.raw_headers)


async def test_what_is_set_on_the_response_comes_back_too(ledger: Ledger) -> None:
    @idempotent()
    async def handle(order: Order, response: Response) -> int:
        response.status_code, response.headers["Location"] = 201, "/orders/1"
        return 1

    await called(handle, Order(), Response())
    again = Response()
    assert await called(handle, Order(), again) == 1
    assert (again.status_code, again.headers["Location"]) == (201, "/orders/1")


@pytest.mark.parametrize("result", [float("nan"), "x" * 2_000_000], ids=["unfit", "too large"])
async def test_result_that_cannot_be_kept_is_not_computed_again(ledger: Ledger, runs: Runs, result: Any) -> None:
    @idempotent()
    async def handle(order: Order) -> Odd:
        await runs.one()
        return Odd(value=result)

    assert (await called(handle, Order())).value is result
    with pytest.raises(Problem) as refused:
        await called(handle, Order())
    assert (refused.value.status, refused.value.headers) == (409, {})
    assert runs.count == 1


async def test_what_surrounds_a_call_is_no_part_of_its_payload(ledger: Ledger, runs: Runs) -> None:
    @idempotent()
    async def handle(
        order: Order,
        db: Annotated[object, Depends(object)],
        agent: Annotated[str, Header()],
        other: Any = Depends(object),  # noqa: B008 - FastAPI's older form
    ) -> int:
        return await runs.one()

    for agent in ("one", "two"):
        assert await called(handle, Order(), object(), agent, object()) == 1


async def test_payload_without_a_spelling_is_told_before_the_run(ledger: Ledger, runs: Runs) -> None:
    @idempotent()
    async def handle(thing: object) -> int:
        return await runs.one()

    with pytest.raises(TypeError, match="fingerprint="):
        await called(handle, object())
    assert runs.count == 0


async def test_result_is_kept_for_its_time(ledger: Ledger, runs: Runs) -> None:
    handle = async_handler(runs, ttl="1s", in_progress="200ms")
    assert (await called(handle, Order())).run == 1
    assert (await called(handle, Order())).run == 1
    await asyncio.sleep(1.1)
    assert (await called(handle, Order())).run == 2


async def test_versions_and_handlers_have_operations_of_their_own(ledger: Ledger, runs: Runs) -> None:
    one, two = async_handler(runs), async_handler(runs, version=2)
    assert [(await called(f, Order())).run for f in (one, two, one)] == [1, 2, 1]


@pytest.mark.parametrize(
    ("options", "error"),
    [({"ttl": "0s"}, ValueError), ({"wait": -1}, ValueError), ({"in_progress": "soon"}, ValueError),
     ({"key": "missing.id"}, TypeError), ({"key": "order..id"}, TypeError)],
)  # fmt: skip
def test_bad_options_are_told_at_decoration(options: Mapping[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        async_handler(Runs(), **options)


def test_handler_needs_a_result_that_can_be_kept() -> None:
    async def untyped(order: Order):  # type: ignore[no-untyped-def]
        return 1

    async def parts(order: Order) -> AsyncIterator[int]:
        yield 1

    for function in (untyped, parts):
        with pytest.raises(TypeError):
            idempotent()(function)


async def test_no_key_of_the_cache_is_the_name_of_a_record(server: RedisServer, runs: Runs) -> None:
    settings = Settings(function_name="fn", idempotency_url=f"{server.url}?deadline=8s")
    opened = open_ledger(settings)
    assert opened is not None
    server.command("FLUSHALL")
    with activate_ledger(opened):
        await called(async_handler(runs), Order())
    record = server.command("RANDOMKEY")
    cache = open_cache(server.url, namespace=settings.qualified_name)
    for key in (record, record.removeprefix(f"faas:{settings.qualified_name}:")):
        await cache.delete(key)
    assert server.command("RANDOMKEY") == record
    await cache.close()
    await opened.close()


@pytest.mark.parametrize("plain", [False, True])
async def test_result_that_breaks_while_it_is_packed_does_not_hold_the_key(ledger: Ledger, plain: bool) -> None:
    count = 0

    def broken() -> Response:
        nonlocal count
        count += 1
        response = Response()
        if count == 1:
            response.raw_headers = None  # type: ignore[assignment]
        return response

    async def broken_async() -> Response:
        return broken()

    handle = idempotent(in_progress="0.3s")(broken if plain else broken_async)
    with pytest.raises(TypeError):
        await called(handle)
    async with asyncio.timeout(5):
        while count < 2:
            await asyncio.sleep(0.05)
            with suppress(Problem):
                await called(handle)

"""From a message to an outcome, whatever has brought it."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx2
import pytest

from faasbase import Event, Problem, Reject, Retry, current_call, current_delivery, on_event
from faasbase.app import build_app
from faasbase.errors import HandlerError
from faasbase.events.handlers import event_handlers
from faasbase.lifecycle import Lifecycle
from faasbase.loading import handler_of
from faasbase.settings import Settings
from tests.event_delivery import Order, deliver, processor_of

pytestmark = pytest.mark.anyio


async def test_plain_message_is_an_event_of_its_topic() -> None:
    """Its id is its position, and data without content type is JSON."""
    seen: list[Event[Order]] = []

    @on_event("orders")
    async def take(event: Event[Order]) -> None:
        seen.append(event)

    assert (await deliver(processor_of(take))).kind == "settled"
    assert [(e.id, e.source, e.type, e.data.id) for e in seen] == [("orders/3/41", "kafka:orders", "orders", 7)]


@pytest.mark.parametrize(
    ("kind", "content", "content_type", "data"),
    [
        (bytes, b"\xff\x00", "", b"\xff\x00"),
        (str, b"hello", "", "hello"),
        (Any, b"hello", "text/plain; charset=utf-8", "hello"),
        (Any, b'{"a": 1}', "", {"a": 1}),
        (Any, b"\x01", "application/octet-stream", b"\x01"),
        (Any, b"", "application/json", None),
    ],
)
async def test_data_is_read_by_content_type_or_else_as_the_handler_wants(
    kind: Any, content: bytes, content_type: str, data: Any
) -> None:
    """bytes and str are as they came; everything else is JSON."""
    seen: list[Any] = []

    async def take(event: Any) -> None:
        seen.append(event.data)

    take.__annotations__["event"] = Event[kind]
    headers = {"content-type": content_type} if content_type else {}
    assert (await deliver(processor_of(on_event("orders")(take)), content, headers)).kind == "settled"
    assert seen == [data]


async def test_decoder_takes_the_bytes_and_its_failure_rejects() -> None:
    """Whatever it raises."""

    @on_event("orders", decode=lambda content: {"id": int(content)})
    async def take(event: Event[Order]) -> None:
        assert event.data.id == 12

    processor = processor_of(take)
    assert (await deliver(processor, b"12")).kind == "settled"
    outcome = await deliver(processor, b"twelve")
    assert (outcome.kind, outcome.reason) == ("rejected", "the event's data cannot be decoded: ValueError")


@pytest.mark.parametrize(
    ("content", "headers", "reason"),
    [
        (b"{", {}, "the event's JSON cannot be read"),
        (b"[" * 100_000, {}, "the event's JSON cannot be read"),
        (b'{"id": "seven"}', {}, "the event is not valid: data.id: Input should be a valid integer"),
        (b"{}", {"ce_id": "1"}, "an event in binary mode has four headers at least"),
        (b"[]", {"content-type": "application/cloudevents+json"}, "a structured event is a JSON object"),
        (b"[]", {"content-type": "application/cloudevents-batch+json"}, "events come in binary mode"),
    ],
)
async def test_what_is_no_event_is_rejected_with_a_reason(content: bytes, headers: dict[str, str], reason: str) -> None:
    """And the handler does not run."""

    @on_event("orders")
    async def take(event: Event[Order]) -> None:
        raise AssertionError("must not run")

    outcome = await deliver(processor_of(take), content, headers)
    assert outcome.kind == "rejected"
    assert outcome.reason.startswith(reason)


async def test_structured_event_is_the_same_event() -> None:
    """Binary data is in base64."""
    seen: list[Any] = []

    @on_event("raw")
    async def take(event: Event[bytes]) -> None:
        seen.append((event.id, event.data, event.extensions))

    event = {"specversion": "1.0", "id": "1", "source": "/x", "type": "raw", "data_base64": "AP8=", "region": "eu"}
    headers = {"content-type": "application/cloudevents+json; charset=utf-8"}
    assert (await deliver(processor_of(take), json.dumps(event).encode(), headers)).kind == "settled"
    assert seen == [("1", b"\x00\xff", {"region": "eu"})]


@pytest.mark.parametrize(
    ("error", "kind", "after"),
    [
        (Retry("later", after_seconds=3), "retried", 3),
        (Problem(503, "busy", retry_after_seconds=4), "retried", 4),
        (Problem(429, "busy"), "retried", None),
        (Problem(500, "broken"), "failed", None),
        (RuntimeError("broken"), "failed", None),
        (Reject("never"), "rejected", None),
        (Problem(409, "no"), "rejected", None),
    ],
)
async def test_what_the_handler_raises_decides(error: Exception, kind: str, after: float | None) -> None:
    """A 4xx and `Reject` give up, all else is tried again."""

    @on_event("orders")
    async def take(event: Event[Order]) -> None:
        raise error

    outcome = await deliver(processor_of(take))
    assert (outcome.kind, outcome.after_seconds) == (kind, after)


async def test_unknown_type_is_given_up_or_ignored() -> None:
    """By setting."""

    @on_event("others")
    async def take(event: Event[Order]) -> None: ...

    assert (await deliver(processor_of(take))).kind == "unknown"
    assert (await deliver(processor_of(take, ignore_unknown=True))).kind == "ignored"


async def test_run_that_takes_too_long_is_cancelled_and_has_failed() -> None:
    """The task that delivers goes on, its own cancelling is none of that."""
    ended: list[str] = []

    @on_event("orders")
    async def take(event: Event[Order]) -> None:
        try:
            await asyncio.sleep(30)
        finally:
            ended.append("cancelled")

    began = time.monotonic()
    outcome = await deliver(processor_of(take, timeout_seconds=0.1))
    assert (outcome.kind, outcome.error, ended) == ("failed", "TimeoutError", ["cancelled"])
    assert time.monotonic() - began < 2
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_handler_that_goes_on_after_its_time_is_over_is_settled() -> None:
    """What it has waited for since then is waited for, too."""
    seen: list[str] = []

    @on_event("orders")
    async def take(event: Event[Order]) -> None:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            seen.append(await asyncio.to_thread(lambda: "late"))
        seen.append(await asyncio.to_thread(lambda: "later"))

    assert (await deliver(processor_of(take, timeout_seconds=0.1))).kind == "settled"
    task = asyncio.current_task()
    assert task is not None
    assert (seen, task.cancelling()) == (["late", "later"], 0)


async def test_cancelling_the_delivery_cancels_the_handler() -> None:
    """It is nobody's timeout."""

    @on_event("orders")
    async def take(event: Event[Order]) -> None:
        await asyncio.sleep(30)

    task = asyncio.create_task(deliver(processor_of(take, timeout_seconds=20)))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_def_runs_in_a_thread_and_its_time_limit_does_not_wait_for_it() -> None:
    """The loop goes on."""
    release = threading.Event()
    threads: list[str] = []

    @on_event("orders")
    def take(event: Event[Order]) -> None:
        threads.append(threading.current_thread().name)
        release.wait(5)

    began = time.monotonic()
    outcome = await deliver(processor_of(take, timeout_seconds=0.1))
    assert outcome.error == "TimeoutError"
    assert time.monotonic() - began < 2
    assert threads != [threading.current_thread().name]
    release.set()


async def test_handler_knows_how_its_event_came() -> None:
    """Attempt, position and deadline; logs get the position for the call's id."""
    seen: list[Any] = []

    @on_event("orders")
    async def take(event: Event[Order]) -> None:
        delivery, call = current_delivery(), current_call()
        assert delivery is not None
        assert call is not None
        seen.append((delivery.attempt, delivery.position, delivery.key, call.call_id, call.headers))
        left = delivery.remaining_seconds()
        assert left is not None
        assert 4 < left <= 5

    processor = processor_of(take, timeout_seconds=5, propagated=("x-request-id",))
    await deliver(processor, headers={"x-request-id": "r-1", "cookie": "secret"}, key=b"k", attempt=3)
    assert seen == [(3, "orders/3/41", b"k", "orders/3/41", {"x-request-id": "r-1"})]


async def test_batch_is_filled_by_size_or_by_time() -> None:
    """Whoever delivers waits for the outcome of its own event."""
    batches: list[list[int]] = []

    @on_event("orders", batch_size=3, batch_wait="0.1s")
    async def take(events: list[Event[Order]]) -> list[Exception | None]:
        batches.append([event.data.id for event in events])
        return [Reject("odd") if event.data.id % 2 else None for event in events]

    processor = processor_of(take)
    outcomes = await asyncio.gather(*(deliver(processor, json.dumps({"id": n}).encode()) for n in range(4)))
    assert batches == [[0, 1, 2], [3]]
    assert [outcome.kind for outcome in outcomes] == ["settled", "rejected", "settled", "rejected"]


async def test_batch_that_fails_fails_as_a_whole_and_bad_answers_are_a_failure() -> None:
    """A list of the wrong length settles nothing."""

    @on_event("orders", batch_size=2)
    async def take(events: list[Event[Order]]) -> Any:
        if events[0].data.id:
            return [None]
        raise RuntimeError("broken")

    processor = processor_of(take)
    for content in (b'{"id": 0}', b'{"id": 1}'):
        outcomes = await asyncio.gather(deliver(processor, content), deliver(processor, content))
        assert [outcome.kind for outcome in outcomes] == ["failed", "failed"]


async def test_invalid_event_stays_out_of_its_batch() -> None:
    """Others are not held up by it."""

    @on_event("orders", batch_size=2, batch_wait=0.05)
    async def take(events: list[Event[Order]]) -> None:
        assert len(events) == 1

    processor = processor_of(take)
    outcomes = await asyncio.gather(deliver(processor), deliver(processor, b"{}"))
    assert [outcome.kind for outcome in outcomes] == ["settled", "rejected"]


async def test_giving_up_takes_an_event_out_of_a_batch_that_has_not_begun() -> None:
    """It is not handled behind its deliverer's back."""
    seen: list[int] = []

    @on_event("orders", batch_size=10, batch_wait=0.1)
    async def take(events: list[Event[Order]]) -> None:
        seen.extend(event.data.id for event in events)

    processor = processor_of(take)
    leaving = asyncio.create_task(deliver(processor, b'{"id": 1}'))
    staying = asyncio.create_task(deliver(processor, b'{"id": 2}'))
    await asyncio.sleep(0.02)
    leaving.cancel()
    assert (await staying).kind == "settled"
    assert seen == [2]
    await asyncio.gather(leaving, return_exceptions=True)


async def test_batch_that_everybody_has_given_up_is_cancelled() -> None:
    """One that somebody still waits for goes on."""
    ended: list[str] = []

    @on_event("orders", batch_size=2)
    async def take(events: list[Event[Order]]) -> None:
        try:
            await asyncio.sleep(0.2)
            ended.append("done")
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    for leaving, expected in ((1, "done"), (2, "cancelled")):
        processor = processor_of(take)
        deliveries = [asyncio.create_task(deliver(processor)) for _ in range(2)]
        await asyncio.sleep(0.05)
        for task in deliveries[:leaving]:
            task.cancel()
        await asyncio.gather(*deliveries, return_exceptions=True)
        await asyncio.sleep(0.05)
        assert ended.pop() == expected


@pytest.mark.parametrize(
    "namespace",
    [
        "def f(event): ...",
        "def f(event: int): ...",
        "def f(a: Event[int], b: int): ...",
        "def f(events: list[int]): ...",
    ],
)
def test_handler_of_the_wrong_shape_is_refused_by_name(namespace: str) -> None:
    """At start."""
    scope: dict[str, Any] = {"Event": Event}
    exec(namespace, scope)  # noqa: S102 - a handler as a user may write it
    module = SimpleNamespace(f=on_event("x")(scope["f"]))
    with pytest.raises(HandlerError, match="@on_event f must take one parameter typed Event"):
        event_handlers(module)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_wait": -1}, {"batch_wait": "soon"}])
def test_nonsense_of_batches_is_refused_where_it_is_written(options: dict[str, Any]) -> None:
    """ValueError, when the handler is imported."""
    with pytest.raises(ValueError, match=r"batch|duration"):
        on_event("x", **options)


async def test_handler_that_calls_its_own_application_still_handles_its_event() -> None:
    """Within its task, as a client of the application does that goes through no socket."""
    handler = ModuleType("handler")
    handler.__file__ = "handler.py"
    handler.handle = lambda: current_call().call_id  # type: ignore[union-attr, attr-defined]
    app: Any = build_app(handler_of(handler), Settings(access_log=False), Lifecycle())
    seen: list[object] = []

    @on_event("orders")
    async def take(event: Event[Any]) -> None:
        before = current_delivery(), current_call()
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://function") as client:
            answer = await client.post("/", headers={"x-call-id": "inner"})
        seen.extend((answer.text, before == (current_delivery(), current_call()), before[0] is not None))

    assert (await deliver(processor_of(take))).kind == "settled"
    assert seen == ['"inner"', True, True]


async def test_threads_of_a_handler_have_one_delivery_and_one_call() -> None:
    seen: list[tuple[object, object]] = []

    @on_event("orders")
    async def take(event: Event[Any]) -> None:
        asked = [asyncio.to_thread(lambda: (current_delivery(), current_call())) for _ in range(16)]
        seen.extend(await asyncio.gather(*asked))

    assert (await deliver(processor_of(take))).kind == "settled"
    assert len({(id(delivery), id(call)) for delivery, call in seen}) == 1

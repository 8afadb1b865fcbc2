"""Batches of events pushed over HTTP: each event's fate, and what the sender is told of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from tests.child import Process
from tests.processes import run_function
from tests.wire import Answer, call

pytestmark = pytest.mark.anyio

HANDLER = """
import asyncio

from faasbase import Event, Reject, Retry, on_event
from pydantic import BaseModel

running = most = 0


class Order(BaseModel):
    id: int


@on_event("order.created")
async def fulfil(event: Event[Order]) -> None:
    global running, most
    running += 1
    most = max(most, running)
    await asyncio.sleep(0.02)
    running -= 1
    print("fulfilled", event.id, "most", most)


@on_event("order.later")
async def later(event: Event[Order]) -> None:
    raise Retry("closed", after_seconds=event.data.id)


@on_event("order.never")
async def never(event: Event[Order]) -> None:
    raise Reject("such orders are not taken")


@on_event("order.slow")
async def slow(event: Event[Order]) -> None:
    await asyncio.sleep(event.data.id)
"""
LISTS = """
from faasbase import Event, Reject, Retry, on_event


@on_event("reading", batch_size=20, batch_wait="100ms")
async def store(events: list[Event[int]]) -> list[Exception | None]:
    print("stored", len(events))
    return [Reject("odd") if event.data % 2 else None for event in events]


@on_event("forever")
async def forever(events: list[Event[int]]) -> None:
    import asyncio
    try:
        await asyncio.sleep(60)
    finally:
        print("forever has ended")
"""


@pytest.fixture(scope="module")
async def function() -> AsyncIterator[Process]:
    """Run a function with handlers for each outcome, three lanes wide."""
    async with run_function(HANDLER, EVENTS_LANES="3", exec_timeout="2s") as process:
        await process.ready()
        yield process


def order(event_id: str, kind: str = "order.created", **change: Any) -> dict[str, Any]:
    """Return an event of an order."""
    return {"specversion": "1.0", "id": event_id, "source": "/shop", "type": kind, "data": {"id": 7}, **change}


async def push(function: Process, events: object) -> Answer:
    """Push *events* as one batch."""
    headers = {"Content-Type": "application/cloudevents-batch+json; charset=utf-8"}
    body = events if isinstance(events, bytes) else json.dumps(events).encode()
    return await call(function.port, "/", method="POST", headers=headers, body=body)


def failed(answer: Answer) -> Sequence[tuple[int, str | None, int]]:
    """Return index, id and status of each event that the answer calls failed."""
    return [(one["index"], one["id"], one["status"]) for one in answer.json()["failures"]]


async def test_batch_is_settled_side_by_side(function: Process) -> None:
    """204, with as many events at a time as there are lanes."""
    assert (await push(function, [order(f"a-{number}") for number in range(12)])).status == 204
    for number in range(12):
        await function.log_line(f"fulfilled a-{number} ")
    most = max(int(line.split()[-1]) for line in function.lines() if line.startswith("fulfilled a-"))
    assert most == 3


async def test_empty_batch_is_settled(function: Process) -> None:
    """There is nothing that could fail."""
    assert (await push(function, [])).status == 204


async def test_answer_tells_which_events_are_to_be_sent_again(function: Process) -> None:
    """503 and the longest time that one of them has asked for; what is settled is not among them."""
    later = {"data": {"id": 3}}
    events = [order("b-0"), order("b-1", "order.later", **later), order("b-2", "order.later"), order("b-3")]
    answer = await push(function, events)
    assert (answer.status, answer.header("retry-after")) == (503, "7")
    assert failed(answer) == [(1, "b-1", 503), (2, "b-2", 503)]
    assert answer.json()["failures"][0]["detail"] == "closed"
    assert answer.header("content-type") == "application/problem+json"
    await function.log_line("fulfilled b-3")


async def test_batch_of_which_none_is_to_be_sent_again_is_refused(function: Process) -> None:
    """422 with what each is answered alone; the others are settled."""
    wrong = order("c-2", data={"id": "secret-canary"})
    malformed = {"specversion": "1.0", "id": "c-5", "data": 1, "data_base64": "AA=="}
    events = [order("c-0"), order("c-1", "order.never"), wrong, 7, order("c-4", "unheard.of"), malformed, {}]
    answer = await push(function, events)
    assert (answer.status, answer.header("retry-after")) == (422, None)
    expected = [(1, "c-1", 422), (2, "c-2", 422), (3, None, 400), (4, "c-4", 422), (5, None, 400), (6, None, 422)]
    assert failed(answer) == expected
    assert answer.json()["failures"][1]["errors"][0]["field"] == "data.id"
    assert "canary" not in answer.text
    await function.log_line("fulfilled c-0")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{}", 400),
        (b"", 400),
        (b"[", 400),
        (b"[" * 50_000, 400),
        (b"[" + b"0," * 1000 + b"0]", 413),
    ],
)
async def test_body_that_is_no_batch_is_refused(function: Process, body: bytes, status: int) -> None:
    """As a whole: there are no events to tell of."""
    answer = await push(function, body)
    assert (answer.status, "failures" in answer.json()) == (status, False)


async def test_what_the_call_has_no_time_for_is_to_be_sent_again(function: Process) -> None:
    """The answer still comes, and says what is settled: a batch that is too large gets done over several calls."""
    answer = await push(function, [order("d-0"), order("d-1", "order.slow"), order("d-2")])
    assert (answer.status, failed(answer)) == (503, [(1, "d-1", 503)])
    assert answer.seconds < 2.0


async def test_handler_of_lists_takes_what_came_together() -> None:
    """A batch is handed on in lists of the handler's size, and each event has its own outcome."""
    async with run_function(LISTS, EVENTS_LANES="2", exec_timeout="1s") as function:
        await function.ready()
        readings = [order(f"r-{number}", "reading", data=number) for number in range(40)]
        answer = await push(function, readings)
        assert (answer.status, failed(answer)) == (422, [(number, f"r-{number}", 422) for number in range(1, 40, 2)])
        assert [line for line in function.lines() if line.startswith("stored")] == ["stored 20"] * 2
        singles = [
            call(
                function.port,
                "/",
                method="POST",
                headers={"Content-Type": "application/cloudevents+json"},
                body=json.dumps(order(f"s-{number}", "reading", data=number)).encode(),
            )
            for number in range(3)
        ]
        assert [answer.status for answer in await asyncio.gather(*singles)] == [204, 422, 204]
        await function.log_line("stored 3")
        stuck = await push(function, [order("f-0", "forever", data=1)])
        assert (stuck.status, failed(stuck)) == (503, [(0, "f-0", 503)])
        await function.log_line("forever has ended")

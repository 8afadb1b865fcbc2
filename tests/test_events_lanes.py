"""Lanes of one partition: order per key, so many at a time, and what waits, rests or is given back."""

from __future__ import annotations

import asyncio
import gc
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faasbase.events.lanes import Lanes
from faasbase.events.loop_share import LoopShare

pytestmark = pytest.mark.anyio
SEEN: ContextVar[str] = ContextVar("SEEN", default="nothing")


class Record(NamedTuple):
    key: bytes | None
    number: int
    retries: int = 0
    """How often it is to be run again."""
    steps: int = 0
    """How often its run gives way to others."""


@dataclass
class Handler:
    """Runs records and remembers what happened; `gate` holds every run as long as it is closed."""

    log: list[Record] = field(default_factory=list)
    begun: list[Record] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    retry_seconds: float = 0.0
    running: int = 0
    most: int = 0

    def run(self, record: Record) -> Coroutine[Any, Any, float | None] | float | None:
        self.begun.append(record)
        if self.gate.is_set() and not record.steps:
            return self.ended(record)
        return self.wait(record)

    async def wait(self, record: Record) -> float | None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.gate.wait()
            for _ in range(record.steps):
                await asyncio.sleep(0)
        finally:
            self.running -= 1
        return self.ended(record)

    def ended(self, record: Record) -> float | None:
        if self.begun.count(record) <= record.retries:
            return self.retry_seconds
        self.log.append(record)
        return None

    def lanes(self, size: int = 8, *, ordered: bool = True, closed: bool = False) -> Lanes[Record]:
        if not closed:
            self.gate.set()
        return Lanes(self.run, self.errors.append, size=size, ordered=ordered)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop go on until *condition* holds, for five seconds at most."""
    ends = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < ends
        await asyncio.sleep(0.001)


def unexpected(error: BaseException) -> None:
    """Fail where no error may surface: the loop's handler of exceptions is the only one above."""
    raise AssertionError from error


def idle(lanes: Lanes[Any]) -> bool:
    return not (lanes.running or lanes.waiting or lanes.parked)


KEYS = st.sampled_from((None, b"", b"a", b"b", b"c", b"d"))
RECORDS = st.lists(st.tuples(KEYS, st.integers(0, 2), st.integers(0, 3)), max_size=60)


@settings(max_examples=100, deadline=None)
@given(drawn=RECORDS, size=st.integers(1, 4), ordered=st.booleans(), pause=st.integers(1, 20))
def test_every_record_is_done_once_in_its_keys_order(
    drawn: list[tuple[bytes | None, int, int]], size: int, ordered: bool, pause: int
) -> None:
    records = [Record(key, number, *rest) for number, (key, *rest) in enumerate(drawn)]

    async def consume() -> Handler:
        handler = Handler()
        lanes = handler.lanes(size, ordered=ordered)
        for record in records:
            lanes.submit((record.key, record))
            if record.number % pause == 0:
                await asyncio.sleep(0)
        await until(lambda: idle(lanes))
        assert not lanes._behind, "a key that is done leaves nothing behind"
        return handler

    handler = asyncio.run(consume())
    assert sorted(handler.log, key=lambda record: record.number) == records
    assert Counter(handler.begun) == {record: record.retries + 1 for record in records}
    assert handler.most <= size
    assert not handler.errors
    if ordered:
        runs = defaultdict[bytes | None, list[int]](list)
        for record in handler.begun:
            runs[record.key].append(record.number)
        runs.pop(None, None)
        assert all(numbers == sorted(numbers) for numbers in runs.values())


async def test_one_key_uses_one_lane_and_other_keys_the_rest() -> None:
    handler = Handler()
    lanes = handler.lanes(3, closed=True)
    for number, key in enumerate((b"a", b"a", b"b", None, None)):
        lanes.submit((key, Record(key, number)))
    await until(lambda: len(handler.begun) == 3)
    assert [record.number for record in handler.begun] == [0, 2, 3]
    assert (lanes.running, lanes.waiting, lanes.parked) == (3, 2, 0)
    handler.gate.set()
    await until(lambda: idle(lanes))
    assert {record.number for record in handler.log} == {0, 1, 2, 3, 4}


async def test_unordered_lanes_run_one_key_side_by_side() -> None:
    handler = Handler()
    lanes = handler.lanes(4, ordered=False, closed=True)
    for number in range(4):
        lanes.submit((b"a", Record(b"a", number)))
    await until(lambda: handler.running == 4)
    assert await lanes.cancel()


async def test_parked_key_holds_no_lane_and_keeps_its_order() -> None:
    handler = Handler(retry_seconds=0.1)
    lanes = handler.lanes(1)
    lanes.submit((b"a", Record(b"a", 0, retries=1)))
    lanes.submit((b"a", Record(b"a", 1)))
    await until(lambda: lanes.parked == 1)
    lanes.submit((b"b", Record(b"b", 2)))
    await until(lambda: len(handler.log) == 1)
    assert (lanes.running, lanes.waiting, lanes.parked) == (0, 1, 1)
    await until(lambda: idle(lanes))
    assert [record.number for record in handler.log] == [2, 0, 1]


async def test_runs_that_wait_for_nothing_share_a_lane_and_one_that_waits_holds_up_none() -> None:
    """The first of them that waits lets the next one begin beside it."""
    used: list[int] = []
    gate = asyncio.Event()

    async def run(number: int) -> None:
        used.append(lanes.running)
        if number == 3:
            await gate.wait()

    lanes: Lanes[int] = Lanes(run, unexpected, size=4)
    for number in range(8):
        lanes.submit((None, number))
    await until(lambda: len(used) == 8)
    assert (used, lanes.running) == ([1] * 4 + [2] * 4, 1)
    gate.set()
    await until(lambda: idle(lanes))


async def test_stop_gives_back_what_waits_and_lets_runs_end() -> None:
    handler = Handler(retry_seconds=30)
    lanes = handler.lanes(2)
    lanes.submit((b"p", Record(b"p", 0, retries=1)))
    lanes.submit((b"p", Record(b"p", 1)))
    await until(lambda: lanes.parked == 1)
    handler.gate.clear()
    for number, key in enumerate((b"a", b"b", b"a", None), 2):
        lanes.submit((key, Record(key, number, retries=number == 2)))
    await until(lambda: handler.running == 2)
    assert sorted(record.number for record in lanes.stop()) == [0, 1, 4, 5]
    assert not await lanes.drained(0.01)
    handler.gate.set()
    assert await lanes.drained(5)
    assert idle(lanes)
    assert ([record.number for record in handler.log], handler.errors) == ([3], [])
    with pytest.raises(RuntimeError, match="stopped"):
        lanes.submit((None, Record(None, 9)))


async def test_parked_record_is_not_run_after_stop() -> None:
    handler = Handler(retry_seconds=0.1)
    lanes = handler.lanes()
    lanes.submit((None, Record(None, 0, retries=1)))
    await until(lambda: lanes.parked == 1)
    assert lanes.stop() == handler.begun
    await asyncio.sleep(0.2)
    assert (len(handler.begun), lanes.waiting) == (1, 0)


async def test_cancel_ends_what_runs_and_reports_no_error() -> None:
    handler = Handler()
    lanes = handler.lanes(2, closed=True)
    for number in range(4):
        lanes.submit((None, Record(None, number)))
    await until(lambda: handler.running == 2)
    assert await lanes.cancel()
    assert (handler.running, handler.log, handler.errors) == (0, [], [])
    assert idle(lanes)


async def test_cancel_does_not_wait_for_a_run_that_refuses_to_end() -> None:
    release = asyncio.Event()

    async def stubborn(item: int) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    lanes = Lanes(stubborn, unexpected)
    lanes.submit((None, 1))
    await asyncio.sleep(0)
    assert not await lanes.cancel(0.01)
    release.set()
    assert await lanes.drained(5)


async def test_error_before_anything_is_awaited_holds_its_key_too() -> None:
    error = ValueError("a mistake")
    errors, done = list[BaseException](), list[int]()

    def run(item: int) -> None:
        if item == 0:
            raise error
        done.append(item)

    lanes = Lanes(run, errors.append, size=1)
    for item, key in enumerate((b"a", b"a", b"b", None)):
        lanes.submit((key, item))
    await until(lambda: len(done) == 2)
    assert (errors, done, lanes.stop()) == ([error], [2, 3], [1])


@pytest.mark.parametrize("error", [ValueError("a mistake"), asyncio.CancelledError()])
async def test_error_surfaces_and_nothing_overtakes_its_record(error: BaseException) -> None:
    errors, done = list[BaseException](), list[int]()

    async def run(item: int) -> None:
        await asyncio.sleep(0)
        if item == 0:
            raise error
        done.append(item)

    lanes = Lanes(run, errors.append, size=1)
    for item, key in enumerate((b"a", b"a", b"b", None)):
        lanes.submit((key, item))
    await until(lambda: len(done) == 2)
    assert [type(found) for found in errors] == [type(error)]
    assert (done, lanes.running, lanes.stop()) == ([2, 3], 0, [1])


async def test_run_that_cancels_its_own_task_is_a_mistake() -> None:
    errors = list[BaseException]()

    def run(item: int) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        raise asyncio.CancelledError

    lanes = Lanes(run, errors.append)
    lanes.submit((b"a", 0))
    await until(lambda: bool(errors))
    assert [type(error) for error in errors] == [asyncio.CancelledError]


async def test_cancel_that_comes_too_late_for_its_run_meets_no_other() -> None:
    """What a run leaves of a request to cancel its task must not end the next record's run."""
    errors, done = list[BaseException](), list[int]()

    async def run(item: int) -> None:
        await asyncio.sleep(0)
        task = asyncio.current_task()
        if item == 0 and task is not None:
            task.cancel()
        done.append(item)

    lanes = Lanes(run, errors.append, size=1)
    for item in range(3):
        lanes.submit((None, item))
    await until(lambda: len(done) == 3)
    assert (done, errors) == ([0, 1, 2], [])


async def test_context_of_a_run_is_its_own() -> None:
    """It starts as the one that the lanes were made in, and goes on over its waits."""
    seen = list[tuple[str, str]]()

    async def run(item: str) -> float | None:
        before = SEEN.get()
        SEEN.set(item)
        await asyncio.sleep(0)
        try:
            await asyncio.wait_for(asyncio.Event().wait(), 0.001)
        except TimeoutError:
            seen.append((before, SEEN.get()))
        return 0.0 if len(seen) < 4 else None

    SEEN.set("outside")
    lanes = Lanes(run, unexpected, size=1)
    SEEN.set("changed since")
    for item in ("first", "second", "third"):
        lanes.submit((None, item))
    await until(lambda: len(seen) == 6)
    assert {before for before, _ in seen} == {"outside"}
    assert {after for _, after in seen} == {"first", "second", "third"}


async def test_runs_that_wait_for_nothing_let_the_loop_go_on() -> None:
    turns = 0

    async def run(item: int) -> None:
        return None

    lanes = Lanes(run, unexpected)
    for item in range(20_000):
        lanes.submit((None, item))
    while lanes.waiting:
        await asyncio.sleep(0)
        turns += 1
    assert turns > 5


async def test_memory_is_given_back_when_keys_are_done() -> None:
    async def run(item: int) -> None:
        return None

    lanes = Lanes(run, unexpected)
    for burst in range(20):
        for number in range(1000):
            lanes.submit((b"%d-%d" % (burst, number // 2), number))
        await until(lambda: not lanes.waiting and not lanes.running)
    gc.collect()
    assert not lanes._behind
    assert not lanes._workers


@pytest.mark.parametrize("busy", [0, 1, 12, 40, 100])
def test_lanes_share_a_round_of_the_loop(busy: int) -> None:
    """Whatever else runs on it waits for all of them; only where there are very many each keeps a shortest turn."""
    share = LoopShare()
    share.busy = busy
    assert 0.0005 <= share.seconds <= 0.002
    assert busy * share.seconds <= max(0.025, busy * 0.0005)


async def test_lanes_take_of_the_loop_only_while_something_runs() -> None:
    share, gate, taken = LoopShare(), asyncio.Event(), []

    async def run(item: str) -> None:
        taken.append(share.busy)
        if item == "wait":
            await gate.wait()
        if item == "fail":
            raise ValueError

    failed: list[BaseException] = []
    lanes = [Lanes(run, failed.append, share=share) for _ in range(3)]
    for one in lanes:
        one.submit((b"a", "wait"), (b"b", "go on"), (b"c", "fail"))
    await until(lambda: len(failed) == 3)
    assert max(taken) > 0
    assert share.busy == 0
    gate.set()
    await until(lambda: not any(one.running for one in lanes))
    assert share.busy == 0

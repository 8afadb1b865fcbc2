"""The messages that a consumer has in hand: each once, no more at a time than there are lanes, suspects alone."""

from __future__ import annotations

import asyncio
from collections.abc import Container
from itertools import product
from typing import Any

import pytest

from faasbase.events.nats.acks import Acks
from faasbase.events.nats.client import Message, NatsClient
from faasbase.events.nats.hand import Hand, Held

pytestmark = pytest.mark.anyio

SECONDS = 5.0


class Work:
    """What runs messages: each waits until it is told to end."""

    def __init__(self, size: int = 2, last_attempt: int = 3, settled: Container[str] = ()) -> None:
        self.running: dict[str, asyncio.Event] = {}
        self.most = 0
        self.ended: list[tuple[str, int]] = []
        self.hand = Hand(self._run, lambda: None, size=size, last_attempt=last_attempt, settled=settled)
        self.pauses: list[float] = []

    async def _run(self, held: Held) -> None:
        position = held.record.position
        self.running[position] = asyncio.Event()
        self.most = max(self.most, len(self.running))
        await self.running[position].wait()
        self.ended.append((held.reply, len(self.running)))
        if self.pauses:
            self.hand.park(held, self.pauses.pop())
        del self.running[position]

    async def end(self, position: str) -> None:
        """Let one that runs end, and whatever comes next begin."""
        self.running[position].set()
        await settle()


async def settle() -> None:
    """Let the loop go round."""
    for _ in range(5):
        await asyncio.sleep(0)


async def gathered() -> None:
    """Let the suspects that come together be here."""
    await asyncio.sleep(0.1)


def message(sequence: int, attempt: int = 1) -> Message:
    """Return a delivery of the message *sequence* of the stream S."""
    client: Any = None
    reply = f"$JS.ACK.S.C.{attempt}.{sequence}.{sequence}.1795521222798276596.0"
    return Message(_client=client, subject="work", reply=reply, data=b"{}")


async def test_no_more_run_than_there_are_lanes() -> None:
    """Others wait for their turn, and there is no room for more."""
    work = Work()
    for sequence in range(1, 5):
        assert work.hand.take(message(sequence)) is not None
    await settle()
    assert (list(work.running), work.hand.room) == (["S/1", "S/2"], 0)
    await work.end("S/1")
    assert list(work.running) == ["S/2", "S/3"]
    await work.hand.drain(0)


async def test_message_that_comes_again_while_it_runs_is_not_run_twice() -> None:
    """The server is told by the subject of the last delivery, which is the one that counts."""
    work = Work()
    work.hand.take(message(1))
    await settle()
    assert work.hand.take(message(1, attempt=2)) is None
    await work.end("S/1")
    assert work.ended == [(message(1, attempt=2).reply, 1)]


async def test_nothing_begins_after_the_stop() -> None:
    """What waits is given back, and what runs ends."""
    work = Work(size=1)
    for sequence in (1, 2):
        work.hand.take(message(sequence))
    await settle()
    work.hand.stop()
    work.hand.take(message(3))
    await work.end("S/1")
    assert not work.running
    assert [held.record.position for held in work.hand.release()] == ["S/2", "S/3"]
    assert not work.hand.replies()


async def test_suspects_run_alone() -> None:
    """Nothing runs beside one, and nothing more is fetched, until all are done with."""
    work = Work(size=3)
    work.hand.take(message(1))
    await settle()
    for sequence in (2, 3):
        work.hand.take(message(sequence, attempt=4))
    work.hand.take(message(4))
    await settle()
    assert (list(work.running), work.hand.room) == (["S/1"], 0)
    await work.end("S/1")
    await gathered()
    for suspect in ("S/2", "S/3"):
        assert list(work.running) == [suspect]
        await work.end(suspect)
    assert list(work.running) == ["S/4"]
    assert work.hand.room == 2
    await work.hand.drain(0)


@pytest.mark.parametrize(("attempt", "order"), [(4, [8, 9, 10]), (5, [10, 9, 8])])
async def test_all_suspects_come_before_one_that_ends_the_process(attempt: int, order: list[int]) -> None:
    """In the first process those that are before it, in the next those behind it, however they come."""
    work = Work()
    for sequence in (9, 8, 10):
        work.hand.take(message(sequence, attempt))
    await gathered()
    for sequence in order:
        assert list(work.running) == [f"S/{sequence}"]
        await work.end(f"S/{sequence}")


async def test_suspects_run_in_any_order_later() -> None:
    """Several may end the process: no message is always between them."""
    works = [Work() for _ in range(40)]
    for work, sequence in product(works, range(1, 4)):
        work.hand.take(message(sequence, attempt=6))
    await gathered()
    seen = {position for work in works for position in work.running}
    for work in works:
        work.hand.stop()
        await work.hand.drain(0)
    assert seen == {"S/1", "S/2", "S/3"}


async def test_what_overruns_is_cancelled() -> None:
    """And has ended when the draining has."""
    work = Work()
    work.hand.take(message(1))
    await settle()
    async with asyncio.timeout(SECONDS):
        await work.hand.drain(0.01)
    assert (work.hand.running, work.ended) == (0, [])


async def test_mistake_in_running_is_kept() -> None:
    """Whoever fetches can tell that a message could not be settled."""

    async def run(held: Held) -> None:
        raise LookupError(held.reply)

    hand = Hand(run, lambda: None, size=1, last_attempt=3)
    hand.take(message(1))
    await settle()
    assert isinstance(hand.error, LookupError)


async def test_parked_message_is_run_once_more_and_takes_no_lane() -> None:
    """It is still in hand, so that the server is told of it, and begins when its pause is over."""
    work = Work(size=1)
    work.pauses = [0.2]
    work.hand.take(message(1))
    await settle()
    await work.end("S/1")
    assert (work.hand.replies(), work.hand.room) == ([message(1).reply], 1)
    work.hand.take(message(2))
    await settle()
    await asyncio.sleep(0.3)
    assert (list(work.running), work.hand.room) == (["S/2"], 0)
    await work.end("S/2")
    assert list(work.running) == ["S/1"]
    await work.end("S/1")
    assert (work.hand.replies(), work.hand.room) == ([], 1)


async def test_parked_message_is_given_back_at_the_stop() -> None:
    """Another process goes on waiting; here it never begins again."""
    work = Work()
    work.pauses = [0.02]
    work.hand.take(message(1))
    await settle()
    await work.end("S/1")
    work.hand.stop()
    assert [held.record.position for held in work.hand.release()] == ["S/1"]
    await asyncio.sleep(0.05)
    assert not work.running


async def test_settled_message_that_comes_again_is_not_run() -> None:
    """Its server has sent it once more before it has read that it is settled."""

    class Lost:
        current: NatsClient | None = None

    acks = Acks(Lost())
    work = Work(settled=acks)
    await acks.settle(message(1).reply, "S/1")
    assert work.hand.take(message(1, attempt=2)) is None
    acks.confirm(acks.sent())
    assert work.hand.take(message(1, attempt=3)) is not None
    await work.hand.drain(0)

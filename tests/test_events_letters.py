"""What becomes of an event that is not settled: tried again, when, or a dead letter, of whatever message."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest
from prometheus_client import REGISTRY

from faasbase import Event, Reject, Retry, on_event
from faasbase.event_policy import EventsPolicy
from faasbase.events import PublishError, settlement
from faasbase.events.dead_letters import DeadLetter, Header, dead_letter, read_letter, redriven_headers
from faasbase.events.envelope import Parcel
from faasbase.events.handlers import event_handlers
from faasbase.events.outcomes import Outcome
from faasbase.events.outgoing import TooLargeError
from faasbase.events.processing import Processor
from faasbase.events.records import Record
from faasbase.events.settlement import DEAD, Settlement, Verdict

pytestmark = pytest.mark.anyio

FAILED = Outcome("failed", "boom", "RuntimeError")
WAITING = "faas_dead_letters_waiting"


class Shelf:
    """Keeps letters of up to *most* bytes, once *refusals* of them are over."""

    def __init__(self, most: int = 1_000_000, refusals: Sequence[Exception] = ()) -> None:
        self.letters: list[DeadLetter] = []
        self._most, self._refusals = most, list(refusals)

    async def send(self, letter: DeadLetter) -> None:
        if self._refusals:
            raise self._refusals.pop(0)
        if len(letter.content) + sum(len(name) + len(value) for name, value in letter.all_headers()) > self._most:
            raise TooLargeError("the shelf is too low")
        self.letters.append(letter)


def record_of(content: bytes = b"{}", **changed: Any) -> Record:
    return Record("kafka", "orders", "orders/3", 41, content, {}, **{"source": "kafka:orders", **changed})


async def tried(raised: Exception, record: Record | None = None, **policy: Any) -> Verdict:
    """Return what becomes of *record* when its handler raises *raised*."""

    @on_event("orders")
    async def take(event: Event[Any]) -> None:
        raise raised

    module = ModuleType("handler")
    module.take = take  # type: ignore[attr-defined]
    settled = Settlement(Processor(event_handlers(module)), EventsPolicy(**policy), Shelf(), "fn")
    plain = ("orders/3/41", "kafka:orders", "orders")
    return await settled.handle(record or record_of(), Parcel(b"{}", {}, "ce_", False, plain))


def giving_up(shelf: Shelf) -> Settlement:
    return Settlement(Processor([]), EventsPolicy(), shelf, "fn")


@pytest.mark.parametrize(
    ("content", "headers", "key"),
    [
        (b"\x00\xff", [("x", b"\xff"), ("x", b""), ("y", b"2")], b"k\xff"),
        (b"", [("x", None), ("a,b %", None), ("y", b"")], None),
        (b"", [("", b"")], b""),
    ],
)
@pytest.mark.parametrize("tombstone", [False, True])
async def test_letter_is_read_as_it_was(
    content: bytes, headers: list[Header], key: bytes | None, tombstone: bool
) -> None:
    letter = dead_letter(record_of(content, raw_headers=headers, key=key, tombstone=tombstone), FAILED, "fn")
    read = read_letter(content, letter.all_headers())
    assert read.headers == tuple(headers)
    assert (read.id, read.content, read.key, read.tombstone) == (letter.id, content, key, tombstone)
    assert redriven_headers(read)[: len(headers)] == headers


async def test_letters_of_one_position_differ_where_their_topic_was_made_anew() -> None:
    """The same message has the same id however often it is given up."""
    ids = [dead_letter(record_of(timestamp=at), FAILED, "fn").id for at in (1.5, 1.5, 2.5, None)]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


@pytest.mark.parametrize("reason", [ValueError("no shelf"), "half \ud800 a character", b"bytes", None])
async def test_any_reason_is_text_in_the_letter(reason: Any) -> None:
    """Handlers repeat what strangers have written, and say what they caught."""
    shelf = Shelf()
    await giving_up(shelf).give_up(record_of(), Outcome("rejected", Reject(reason).reason, "Reject"))
    read = read_letter(b"", shelf.letters[0].all_headers())
    assert read.reason == shelf.letters[0].reason == str(reason).replace("\ud800", "\\ud800")
    assert Retry(reason).reason == str(reason)


async def test_letter_that_is_too_large_is_kept_without_its_content() -> None:
    """Key and headers of the message are in it, unless those are large."""
    small, large = [("ce_id", b"7")], [("x", b"1" * 5000)]
    shelf = Shelf(most=3000)
    for headers, key in ((small, b"k"), (large, b"k" * 5000)):
        await giving_up(shelf).give_up(record_of(b"1" * 4000, raw_headers=headers, key=key), FAILED)
    first, second = (read_letter(letter.content, letter.all_headers()) for letter in shelf.letters)
    assert (first.content, first.truncated, first.headers, first.key) == (b"", 4000, (("ce_id", b"7"),), b"k")
    assert (second.truncated, second.headers, second.key) == (4000, (), None)


async def test_letter_among_others_that_are_too_large_is_kept_whole() -> None:
    """They may have shared a request."""
    shelf = Shelf(refusals=[TooLargeError("all together are")])
    await giving_up(shelf).give_up(record_of(b"small"), FAILED)
    assert (shelf.letters[0].content, shelf.letters[0].truncated) == (b"small", None)


async def test_letter_that_nobody_keeps_is_told_of_until_somebody_does(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where what refuses it does so in a way of its own; the process goes on."""
    monkeypatch.setattr(settlement, "_TELL_SECONDS", 0.0)
    monkeypatch.setattr(settlement, "_SEND_CAP_SECONDS", 0.05)
    refusals = [PublishError("not now"), UnicodeError("a mistake"), PublishError("not now")]
    shelf, labels = Shelf(refusals=refusals), {"destination": "orders"}
    giving = asyncio.create_task(giving_up(shelf).give_up(record_of(), FAILED))
    await asyncio.sleep(0)
    assert REGISTRY.get_sample_value(WAITING, labels) == 1
    await giving
    assert REGISTRY.get_sample_value(WAITING, labels) == 0
    told = [line.getMessage() for line in caplog.records if "cannot be kept" in line.getMessage()]
    assert [line.rpartition(": ")[2] for line in told] == ["not now", "a mistake", "not now"]


@pytest.mark.parametrize("seconds", [-1.0, float("inf"), float("nan")])
async def test_pause_must_be_some_time(seconds: float) -> None:
    with pytest.raises(ValueError, match="after_seconds"):
        Retry(after_seconds=seconds)
    with pytest.raises(TypeError, match="after_seconds"):
        Retry(after_seconds=f"{seconds}")  # type: ignore[arg-type]


async def test_pause_is_bounded() -> None:
    assert Retry(after_seconds=1e12).after_seconds == 7 * 24 * 3600
    assert await tried(Retry(after_seconds=2)) == Verdict(2.0)


async def test_event_that_would_be_too_old_by_then_is_given_up() -> None:
    """Nothing waits for longer than it may be tried."""
    young = record_of(timestamp=time.time() - 10)
    assert await tried(Retry(after_seconds=5), young, max_age=20.0) == Verdict(5.0)
    assert await tried(Retry(after_seconds=15), young, max_age=20.0) == DEAD
    assert await tried(Retry(after_seconds=15, counts=False), young, max_age=20.0) == DEAD


async def test_try_that_does_not_count_spends_nothing() -> None:
    last = record_of(attempt=10)
    assert await tried(Retry(after_seconds=1, counts=False), last) == Verdict(1.0, counts=False)
    assert await tried(Retry(after_seconds=1), last) == DEAD

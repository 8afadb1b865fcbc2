"""Metadata of a commit: read as it was written, cut to what fits, and believed only where it can be true."""

from __future__ import annotations

import random
import time
from base64 import urlsafe_b64encode
from binascii import crc32
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faasbase.errors import LONGEST_PAUSE_SECONDS
from faasbase.events.kafka.offset_metadata import MAX_CHARACTERS, Attempts, MetadataError, Progress, Run, decode, encode
from faasbase.events.kafka.offsets import OffsetWindow

OFFSETS = st.integers(0, 2**62)
GAPS = st.integers(1, 300)
NUMBERS = st.integers(0, 20) | st.integers(2**62, 2**63)
PAIRS = st.tuples(NUMBERS, NUMBERS)
ATTEMPTS = st.builds(Attempts, st.integers(1, 50), st.integers(0, 3), st.booleans(), st.integers(0, 604_800))


def ascending(start: int, gaps: list[int]) -> list[int]:
    """Return the offsets that lie these gaps apart."""
    found = [start]
    for gap in gaps:
        found.append(found[-1] + gap)
    return found


def runs_of(offset: int, gaps: list[int]) -> tuple[Run, ...]:
    """Return runs whose gaps and lengths are those, by turns."""
    edges = ascending(offset, gaps)[1:]
    return tuple(zip(edges[::2], edges[1::2], strict=False))


def counted(offset: int, gaps: list[int], attempts: list[Attempts]) -> dict[int, Attempts]:
    return dict(zip(ascending(offset, gaps), attempts, strict=False))


def varint(number: int) -> bytes:
    return bytes([number]) if number < 0x80 else bytes([number & 0x7F | 0x80]) + varint(number >> 7)


def forged(*numbers: int, version: int = 1) -> str:
    """Return metadata that says so, whether or not it makes sense."""
    body = b"".join(map(varint, numbers))
    return f"fb{version}." + urlsafe_b64encode(crc32(body).to_bytes(4, "big") + body).decode().rstrip("=")


def window(offset: int, metadata: str) -> OffsetWindow:
    return OffsetWindow(offset, metadata, max_uncommitted=10)


def heir(dead: OffsetWindow) -> OffsetWindow:
    """Return the window of the next owner."""
    commit = dead.commit()
    return window(commit.offset, commit.metadata)


@given(OFFSETS, st.booleans(), st.integers(1, 10**6), st.lists(GAPS, max_size=40), st.lists(ATTEMPTS, max_size=20))
def test_what_fits_is_read_as_it_was_written(
    offset: int, clean: bool, size: int, gaps: list[int], attempts: list[Attempts]
) -> None:
    found = counted(offset, gaps, attempts)
    written_at = 1_800_000_000 if any(one.pause for one in found.values()) else 0
    progress = Progress(clean, size, runs_of(offset, gaps), found, written_at)
    text = encode(offset, clean, size, progress.settled, progress.attempts, written_at=1_800_000_000)
    assert decode(offset, text) == progress
    assert len(text) <= MAX_CHARACTERS


@settings(max_examples=25, deadline=None)
@given(OFFSETS, st.integers(0, 2**32), st.integers(0, 3000), st.integers(0, 3000))
def test_what_does_not_fit_is_forgotten_and_never_invented(offset: int, seed: int, runs: int, records: int) -> None:
    """Pauses go first, then settled runs, the highest; then attempts of those that are furthest from their limit."""
    rng = random.Random(seed)
    settled = runs_of(offset, [rng.choice((1, 5, 500)) for _ in range(runs * 2)])
    pauses = [0, *(rng.randint(0, 300) for _ in range(records))]
    attempts = counted(
        offset,
        [rng.choice((1, 300)) for _ in range(records)],
        [Attempts(rng.randint(1, 9), 0, False, p) for p in pauses],
    )
    text = encode(offset, False, 10, settled, attempts, written_at=1_800_000_000)
    read = decode(offset, text)
    assert len(text) <= MAX_CHARACTERS
    assert read.settled == settled[: len(read.settled)]
    kept = [at for at, one in read.attempts.items() if one.pause]
    assert kept == [at for at in attempts if attempts[at].pause][: len(kept)]
    assert all(one in (attempts[at], attempts[at]._replace(pause=0)) for at, one in read.attempts.items())
    assert not kept or (read.settled, len(read.attempts)) == (settled, len(attempts))
    if read.attempts.keys() != attempts.keys():
        assert len(read.settled) < 10
        assert len(read.attempts) > 500
        forgotten = attempts.keys() - read.attempts.keys()
        assert max(attempts[at].made for at in forgotten) <= min(kept.made for kept in read.attempts.values())


@given(OFFSETS, st.lists(GAPS, max_size=40), st.lists(ATTEMPTS, max_size=20), st.data())
def test_damaged_metadata_tells_nothing(
    offset: int, gaps: list[int], attempts: list[Attempts], data: st.DataObject
) -> None:
    """Cut off, changed in one place, or moved to another offset: what it called settled would be another record."""
    text = encode(offset, True, 10, runs_of(offset, gaps), counted(offset, gaps, attempts))
    at = data.draw(st.integers(0, len(text) - 2))
    other = data.draw(st.characters(codec="ascii").filter(lambda character: character != text[at]))
    for damaged in (text[:at], text[:at] + other + text[at + 1 :]):
        with pytest.raises(MetadataError):
            decode(offset, damaged)
    with pytest.raises(MetadataError, match="another offset"):
        decode(offset + 1, text)


@given(OFFSETS, st.text() | st.binary().map(lambda body: "fb1." + body.hex()) | st.from_regex(r"fb1\.[\w-]{0,5000}"))
def test_garbage_starts_an_empty_window_and_says_so(offset: int, garbage: str) -> None:
    found = window(offset, garbage)
    assert (found.base, found.position, found.attempts_of(offset)) == (offset, offset, 0)
    assert (found.unreadable is None) == (garbage == "")
    assert not found.is_settled(offset + 1)
    assert garbage.removeprefix("fb1.")[:20] not in (found.unreadable or "") or len(garbage) < 20


@given(OFFSETS, st.lists(PAIRS, max_size=3), st.lists(PAIRS, max_size=3), st.lists(NUMBERS, max_size=4))
def test_forged_metadata_is_refused_or_can_be_lived_with(
    offset: int, attempts: list[tuple[int, int]], runs: list[tuple[int, int]], pauses: list[int]
) -> None:
    """A checksum keeps nobody out: numbers that no offset, count or length can be must not come back in a commit."""
    numbers = (0, offset, 10, len(attempts), *chain(*attempts), len(runs), *chain(*runs), *pauses)
    found = window(offset, forged(*numbers, version=2 if pauses else 1))
    found.begin(offset)
    assert found.pause(offset) <= LONGEST_PAUSE_SECONDS
    assert heir(found).unreadable is None
    found.attempt(offset)
    assert heir(found).unreadable is None
    found.settle(offset)
    assert offset < found.commit().offset < 2**63
    assert heir(found).unreadable is None


@pytest.mark.parametrize(
    "numbers",
    [
        (2, 5, 10, 0, 0),
        (0, 5, 0, 0, 0),
        (0, 5, 10**9, 0, 0),
        (0, 5, 10, 0, 1, 0, 3),
        (0, 5, 10, 0, 1, 3, 0),
        (0, 5, 10, 0, 1, 2**63 - 9, 4),
        (0, 5, 10, 1, 2**63 - 5, 8, 0),
        (0, 5, 10, 1, 0, 10**8, 0),
        (0, 5, 10, 0, 0, 0),
        (0, 5, 10, 0, 3, 1, 1),
        (0, 5, 10, 2**63),
    ],
)
def test_values_that_are_never_written_are_not_read(numbers: tuple[int, ...]) -> None:
    assert window(5, forged(0, 5, 10, 0, 1, 1, 3)).is_settled(8)
    assert window(5, forged(*numbers)).unreadable


@pytest.mark.parametrize(
    ("ago", "pause", "least", "most"),
    [(0, 60, 55, 60), (30, 60, 25, 30), (90, 60, 0, 0), (-86_400, 60, 55, 60), (0, 2**62, 604_799, 604_800)],
)
def test_pause_goes_on_and_never_longer_than_it_may(ago: int, pause: int, least: float, most: float) -> None:
    """Whatever the clock of its writer said."""
    found = window(5, forged(0, 5, 10, 1, 0, 1 << 3, 0, int(time.time()) - ago, pause, version=2))
    assert least <= found.pause(5) <= most
    assert found.attempts_of(5) == 1


def test_version_without_pauses_is_written_where_nothing_waits_and_read() -> None:
    """So that owners of both versions can follow each other."""
    found = window(5, forged(0, 5, 10, 1, 1, 2 << 3, 1, 3, 1))
    assert (found.attempts_of(6), found.pause(6), found.is_settled(8)) == (2, 0, True)
    assert found.commit().metadata.startswith("fb1.")
    assert window(5, forged(0, 5, 10, 1, 1, 2 << 3, 0, 1_800_000_000, 60)).unreadable
    found.begin(6)
    found.attempt(6)
    found.ended(6, 60)
    assert found.commit().metadata.startswith("fb2.")


def test_overlong_metadata_is_not_even_looked_at() -> None:
    text = encode(5, True, 10, [(7, 9)], {})
    assert window(5, text + "A" * MAX_CHARACTERS).unreadable == "it is longer than what is written here"

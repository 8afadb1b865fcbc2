"""
What a committed offset says beside its number: a text of at most 4096 characters, hostile until it is checked.

The payload is ``flags base window attempts runs pauses``: numbers as varints (seven bits a byte, the lowest first),
base64url behind a version and before that a CRC.  Pauses, which version 1 does not know, are the time of writing and
how long from then on each record of the attempts waits, as far as one does.  What does not fit is left out in the order
that costs least: pauses (their records are tried sooner), then settled runs from the top (theirs are run again), then
attempts (they are counted anew).  Nothing is ever settled by its absence.
"""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

MAX_CHARACTERS = 4096
"""The broker's default for ``offset.metadata.max.bytes``; it refuses a commit with more."""
MIN_CHARACTERS = 64
"""What always fits says little more than whether the owner ended in peace."""
MAX_WINDOW = 100_000_000
MAX_ATTEMPTS = 1_000_000
"""More are counted as that many."""

_VERSION, _WITH_PAUSES = "fb1.", "fb2."
_TEXT = re.compile(r"fb[12]\.([A-Za-z0-9_-]+)", re.ASCII)
_CRC_BYTES = 4
_MAX_VARINT = 9
_COUNT_BYTES = 2
_CLEAN = 1
_MOST_DEATHS = 3
_END_OF_OFFSETS = 2**63

Run = tuple[int, int]
"""Settled offsets from the first one up to, and without, the second."""


class MetadataError(ValueError):
    """A text that tells nothing; the message says why and shows none of it."""


class Attempts(NamedTuple):
    """How often an unsettled record was run, and how often the process ended meanwhile."""

    made: int
    deaths: int = 0
    """Runs that ended with the process; more than three are counted as three."""
    running: bool = False
    """Whether a run was under way when this was written."""
    pause: int = 0
    """Seconds from that time on that it is not to be run again."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What one owner of a partition leaves to the next, beside the offset up to which everything is settled."""

    clean: bool
    """Whether the owner ended in peace, so that no record is suspected of having ended it."""
    window: int
    """How many records may have been begun since the commit."""
    settled: tuple[Run, ...] = ()
    """Above the offset, ascending, neither touching it nor each other."""
    attempts: Mapping[int, Attempts] = field(default_factory=dict)
    written_at: int = 0
    """In seconds since 1970 by the owner's clock, where a record waits; else 0."""


def encode(
    offset: int,
    clean: bool,
    window: int,
    settled: Iterable[Run],
    attempts: Mapping[int, Attempts],
    max_characters: int = MAX_CHARACTERS,
    *,
    written_at: int = 0,
) -> str:
    """Return the text for a commit of *offset*, with as much of *settled* and *attempts* as fits; none below 64."""
    if max_characters < MIN_CHARACTERS:
        return ""
    head = b"".join(map(_varint, (_CLEAN if clean else 0, offset, min(window, MAX_WINDOW))))
    room = (max_characters - len(_VERSION)) * 3 // 4 - _CRC_BYTES - len(head) - _COUNT_BYTES
    chosen, body = _attempts_that_fit(offset, attempts, room)
    body += _runs_that_fit(offset, settled, room - len(body))
    pauses = _pauses_that_fit(written_at, [attempts[at].pause for at in chosen], room + _COUNT_BYTES - len(body))
    payload = head + body + pauses
    checked = binascii.crc32(payload).to_bytes(_CRC_BYTES, "big") + payload
    # Where nothing waits, owners of an earlier version can read it.
    return (_WITH_PAUSES if pauses else _VERSION) + urlsafe_b64encode(checked).rstrip(b"=").decode("ascii")


def decode(offset: int, text: str) -> Progress:
    """
    Return what *text*, committed with *offset*, says.

    Raises:
        MetadataError: It is another program's, damaged, or was written for another offset, as tools that copy
            a group's offsets to another cluster do: what it calls settled are other records here.
    """
    reader = _Reader(_payload_of(text))
    flags, written_for, window = reader.number(), reader.number(), reader.number()
    if flags not in (0, _CLEAN) or not 0 < window <= MAX_WINDOW:
        raise MetadataError("it holds values that are never written")
    if written_for != offset:
        raise MetadataError("it was written for another offset")
    attempts = dict(_read_attempts(reader, offset))
    settled = tuple(_read_runs(reader, offset))
    written_at = 0
    if text.startswith(_WITH_PAUSES):
        written_at = reader.number()
        attempts.update(_read_pauses(reader, attempts))
    reader.finish()
    return Progress(flags == _CLEAN, window, settled, attempts, written_at)


def _attempts_that_fit(offset: int, attempts: Mapping[int, Attempts], room: int) -> tuple[list[int], bytes]:
    # Whoever came nearest to its limit keeps its count: a record that ends the process must be found in the end.
    chosen = sorted(attempts, key=lambda at: (attempts[at].deaths + attempts[at].running, attempts[at].made, -at))
    while len(body := _written_attempts(offset, attempts, sorted(chosen))) > room:
        chosen = chosen[-(len(chosen) * room // len(body)) or len(chosen) :]
    return sorted(chosen), body


def _written_attempts(offset: int, attempts: Mapping[int, Attempts], chosen: list[int]) -> bytes:
    written = bytearray(_varint(len(chosen)))
    for previous, at in pairwise([offset, *chosen]):
        made, deaths, running, _ = attempts[at]
        written += _varint(at - previous)
        written += _varint(min(made, MAX_ATTEMPTS) << 3 | min(deaths, _MOST_DEATHS) << 1 | running)
    return bytes(written)


def _read_attempts(reader: _Reader, offset: int) -> Iterator[tuple[int, Attempts]]:
    at = offset
    for _ in range(reader.number()):
        at += reader.number()
        code = reader.number()
        if at >= _END_OF_OFFSETS or code >> 3 > MAX_ATTEMPTS:
            raise MetadataError("it holds values that are never written")
        yield at, Attempts(code >> 3, code >> 1 & _MOST_DEATHS, bool(code & 1))


def _runs_that_fit(offset: int, settled: Iterable[Run], room: int) -> bytes:
    written, count, end = bytearray(), 0, offset
    for start, stop in settled:
        run = _varint(start - end) + _varint(stop - start)
        if len(written) + len(run) > room:
            break
        written += run
        count, end = count + 1, stop
    return _varint(count) + bytes(written)


def _read_runs(reader: _Reader, offset: int) -> Iterator[Run]:
    end = offset
    for _ in range(reader.number()):
        gap, length = reader.number(), reader.number()
        start, end = end + gap, end + gap + length
        if not gap or not length or end >= _END_OF_OFFSETS:
            raise MetadataError("it holds values that are never written")
        yield start, end


def _pauses_that_fit(written_at: int, pauses: list[int], room: int) -> bytes:
    written = bytearray(_varint(written_at))
    last = 0
    for pause in pauses:
        written += _varint(pause)
        if len(written) > room:
            break
        if pause:
            last = len(written)
    return bytes(written[:last])


def _read_pauses(reader: _Reader, attempts: Mapping[int, Attempts]) -> Iterator[tuple[int, Attempts]]:
    for at, counted in list(attempts.items()):
        if reader.ended:
            break
        yield at, counted._replace(pause=reader.number())


def _varint(number: int) -> bytes:
    if number < 0x80:
        return number.to_bytes(1, "big")
    written = bytearray()
    while number >= 0x80:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _payload_of(text: str) -> bytes:
    if len(text) > MAX_CHARACTERS:
        raise MetadataError("it is longer than what is written here")
    match = _TEXT.fullmatch(text)
    if match is None:
        raise MetadataError("another program or version wrote it")
    encoded = match[1]
    try:
        checked = urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except binascii.Error as exc:
        raise MetadataError("it is damaged") from exc
    crc, payload = checked[:_CRC_BYTES], checked[_CRC_BYTES:]
    if crc != binascii.crc32(payload).to_bytes(_CRC_BYTES, "big"):
        raise MetadataError("it is damaged")
    return payload


class _Reader:
    """Takes numbers off a payload, each within 63 bits."""

    def __init__(self, payload: bytes) -> None:
        self._payload, self._at = payload, 0

    def number(self) -> int:
        number = shift = 0
        for byte in self._payload[self._at : self._at + _MAX_VARINT]:
            number |= (byte & 0x7F) << shift
            shift += 7
            self._at += 1
            if byte < 0x80:
                return number
        raise MetadataError("it ends in the middle, or a number has no end")

    @property
    def ended(self) -> bool:
        return self._at == len(self._payload)

    def finish(self) -> None:
        if not self.ended:
            raise MetadataError("it goes on after its end")

"""
Dead letters: what a message was, byte by byte, and why it was given up.

A letter's own headers stand beside those of the message, whose name they never have, so that a redrive can put the
message back as it was.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from math import isfinite
from urllib.parse import quote

from .outcomes import Outcome
from .records import Record

PREFIX = "deadletter-"
"""Of a letter's own headers: id, where the message was, why and when it was given up, and by whom."""

_MAX_REASON_CHARACTERS = 1024
_MAX_SHORT_BYTES = 4096
"""What headers of a message may have together, and its key, in a letter that must be short."""

Header = tuple[str, bytes | None]
"""Kafka has headers without a value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A message that was given up."""

    id: str
    """The same however often the same message is given up by the same function: repeats replace each other."""
    system: str
    destination: str
    """Topic or subject that it came from, and goes back to."""
    position: str
    content: bytes
    headers: tuple[Header, ...]
    """The message's own."""
    key: bytes | None
    attempts: int
    reason: str
    error: str
    function: str
    died_at: float
    """Seconds since 1970."""
    redrives: int = 0
    """How often it was put back before."""
    tombstone: bool = False
    """Whether the message had no content at all, which to Kafka is not the same as an empty one."""
    truncated: int | None = None
    """How many bytes the message's content had, where it was too large to be kept."""

    def shortened(self) -> DeadLetter:
        """Return the letter without what may be large; what the message was is where it lay, if it still is there."""
        key = self.key if self.key is None or len(self.key) <= _MAX_SHORT_BYTES else None
        size = sum(len(name) + len(value or b"") for name, value in self.headers)
        headers = self.headers if size <= _MAX_SHORT_BYTES else ()
        whole = len(self.content) if self.truncated is None else self.truncated
        return replace(self, content=b"", headers=headers, key=key, truncated=whole)

    def own_headers(self) -> list[tuple[str, bytes]]:
        """Return the headers that tell of the letter, the message's not among them."""
        told: dict[str, object] = {
            "id": self.id,
            "system": self.system,
            "destination": self.destination,
            "position": self.position,
            "attempts": self.attempts,
            "reason": self.reason,
            "error": self.error,
            "function": self.function,
            "time": f"{self.died_at:.3f}",
            "redrives": self.redrives,
        }
        if self.key is not None:
            told["key"] = self.key.hex()
        if self.tombstone:
            told["tombstone"] = 1
        if self.truncated is not None:
            told["truncated"] = self.truncated
        if nulls := [quote(name, safe="") for name, value in self.headers if value is None]:
            told["nulls"] = ",".join(nulls)
        return _encoded(told)

    def all_headers(self) -> list[tuple[str, bytes]]:
        """Return the message's headers and the letter's."""
        return [*((name, value or b"") for name, value in self.headers), *self.own_headers()]


def dead_letter(record: Record, outcome: Outcome, function: str, position: str = "") -> DeadLetter:
    """Return the letter of *record*, which *function* gives up for *outcome*; *position* is for one that has none."""
    position = position or record.position
    mine = [header for header in record.raw_headers if not header[0].lower().startswith(PREFIX)]
    told = {name.lower(): value for name, value in record.raw_headers if name.lower().startswith(PREFIX)}
    # A topic that is made anew has the same positions again, and other times.
    named = f"{function}|{record.system}|{position}|{record.timestamp}"
    return DeadLetter(
        id=sha256(named.encode("utf-8", "backslashreplace")).hexdigest()[:32],
        system=record.system,
        destination=record.destination,
        position=position,
        content=record.content,
        headers=tuple(mine),
        key=record.key,
        attempts=record.attempt,
        reason=_line(outcome.reason),
        error=outcome.error,
        function=function,
        died_at=time.time(),
        redrives=_count(told.get(f"{PREFIX}redrives") or b""),
        tombstone=record.tombstone,
    )


def read_letter(content: bytes, headers: Sequence[Header]) -> DeadLetter:
    """
    Read what `DeadLetter.all_headers` and the message's content have become on a broker.

    Raises:
        ValueError: It is no dead letter.
    """
    own = {name.lower(): value or b"" for name, value in headers if name.lower().startswith(PREFIX)}
    told = {name.removeprefix(PREFIX): value for name, value in own.items()}
    text = {name: value.decode("utf-8", "replace") for name, value in told.items()}
    try:
        return DeadLetter(
            id=text["id"],
            system=text["system"],
            destination=text["destination"],
            position=text["position"],
            content=content,
            headers=tuple(_messages_own(headers, text.get("nulls"))),
            key=bytes.fromhex(text["key"]) if "key" in text else None,
            attempts=_count(told["attempts"]),
            reason=text["reason"],
            error=text["error"],
            function=text["function"],
            died_at=_moment(text["time"]),
            redrives=_count(told.get("redrives", b"")),
            tombstone="tombstone" in told,
            truncated=_count(told["truncated"]) if "truncated" in told else None,
        )
    except KeyError as exc:
        raise ValueError(f"the message is no dead letter: {PREFIX}{exc.args[0]} is missing") from None


def redriven_headers(letter: DeadLetter) -> list[Header]:
    """Return the headers that the message goes back with: its own, where it was, and how often it went back."""
    return [
        *letter.headers,
        *_encoded({"id": letter.id, "position": letter.position, "redrives": letter.redrives + 1}),
    ]


def _messages_own(headers: Iterable[Header], nulls: str | None) -> Iterable[Header]:
    without = () if nulls is None else nulls.split(",")
    for name, value in headers:
        if not name.lower().startswith(PREFIX):
            yield name, None if not value and quote(name, safe="") in without else value


def _encoded(told: Mapping[str, object]) -> list[tuple[str, bytes]]:
    # What others have written may have halves of characters in it, which are no UTF-8.
    return [(PREFIX + name, str(value).encode("utf-8", "backslashreplace")) for name, value in told.items()]


def _moment(text: str) -> float:
    seconds = float(text)
    if not isfinite(seconds):
        raise ValueError("the message is no dead letter: its time is no time")
    return seconds


def _line(reason: object) -> str:
    text = str(reason).encode("utf-8", "backslashreplace").decode("utf-8")
    return " ".join(text.split())[:_MAX_REASON_CHARACTERS]


def _count(value: bytes) -> int:
    return int(value) if value.isdigit() and len(value) < 10 else 0

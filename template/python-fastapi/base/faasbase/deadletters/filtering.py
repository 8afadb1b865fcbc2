"""Which of the dead letters a command is about."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence, Set
from contextlib import aclosing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import inf

from ..errors import FaasError
from ..events.dead_letters import DeadLetter
from .letters import Letters, Stored
from .rendering import plain

_WHOLE_ID = re.compile("[0-9a-f]{32}")
_SHOWN_IDS = 3


class AmbiguousIdError(FaasError):
    """Several letters have ids that begin as the one asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """What a letter must be like; texts may hold ``*`` and ``?``."""

    ids: frozenset[str] = frozenset()
    """Empty is every id."""
    destination: str = "*"
    error: str = "*"
    function: str = "*"
    since: float = -inf
    """Seconds since 1970, as `until`."""
    until: float = inf
    redrives_below: float = inf

    def takes(self, letter: DeadLetter) -> bool:
        """Tell whether *letter* is one of them."""
        return (
            (not self.ids or letter.id in self.ids)
            and fnmatchcase(letter.destination, self.destination)
            and fnmatchcase(letter.error, self.error)
            and fnmatchcase(letter.function, self.function)
            and self.since <= letter.died_at <= self.until
            and letter.redrives < self.redrives_below
        )


class Selection:
    """The letters that *wanted* takes, *limit* of them at most; None is no limit."""

    def __init__(self, letters: Letters, wanted: Filter, limit: int | None) -> None:
        self._letters, self._filter, self._limit = letters, wanted, limit
        self.seen = 0
        self.taken = 0
        self.missing = set(wanted.ids)
        """The ids asked for that no letter has had so far."""

    async def found(self) -> AsyncGenerator[Stored, None]:
        """Yield them, as `Letters.found`."""
        async with aclosing(self._letters.found()) as found:
            async for stored in found:
                self.seen += 1
                if self._filter.takes(stored.letter):
                    self.missing.discard(stored.letter.id)
                    self.taken += 1
                    yield stored
                if self.taken == self._limit:
                    return


async def whole_ids(letters: Letters, given: Sequence[str]) -> list[str]:
    """
    Return *given* with beginnings of ids made whole; what no id begins with stays, to be told as missing.

    Raises:
        AmbiguousIdError: More than one id begins so.
        PlaceError: The letters cannot be read.
    """
    if all(map(_WHOLE_ID.fullmatch, given)):
        # What is cut short costs one more look at all letters: only then is it known that no other begins so.
        return list(given)
    matching: dict[str, set[str]] = {begin: set() for begin in given if begin}
    async with aclosing(letters.found()) as found:
        async for stored in found:
            for begin, ids in matching.items():
                if stored.letter.id.startswith(begin):
                    ids.add(stored.letter.id)
    return [_whole(begin, matching.get(begin, set())) for begin in given]


def _whole(begin: str, ids: Set[str]) -> str:
    if begin in ids or not ids:
        return begin
    if len(ids) == 1:
        return next(iter(ids))
    shown = ", ".join(sorted(ids)[:_SHOWN_IDS])
    more = f" and {len(ids) - _SHOWN_IDS} more" if len(ids) > _SHOWN_IDS else ""
    raise AmbiguousIdError(plain(f"{begin}: the ids of {len(ids)} letters begin so: {shown}{more}"))

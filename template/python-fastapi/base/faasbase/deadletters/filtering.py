"""Which of the dead letters a command is about."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import inf

from ..events.dead_letters import DeadLetter
from .letters import Letters, Stored


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

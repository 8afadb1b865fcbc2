"""What one assignment knows of one partition: which records are settled, how often others were run, what waits."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from ...errors import LONGEST_PAUSE_SECONDS
from .offset_metadata import MAX_CHARACTERS, Attempts, MetadataError, Progress, Run, decode, encode

DEATHS_BEFORE_ALONE = 2
"""Runs that ended with the process, after which a record runs by itself: its neighbours may have been the cause."""
DEATHS_AT_MOST = 3
"""The last of them alone, so that no record is given up for what another one did."""
_END_OF_OFFSETS = 2**63


class Commit(NamedTuple):
    """What to commit, and for `OffsetWindow.committed` what it covers."""

    offset: int
    metadata: str
    changes: int


class OffsetWindow:
    """
    The records of a partition from *offset* on, the committed one, with the *metadata* that was committed with it.

    Offsets are begun in ascending order; those between them that are never begun (compacted away, markers of
    transactions) count as settled.  `dirty` from the start unless the last owner died: its mark of a clean end must be
    taken away by a commit *before* anything is run, or a record that ends the process would never be suspected.
    """

    def __init__(self, offset: int, metadata: str = "", *, max_uncommitted: int) -> None:
        self.position = offset
        """The offset above all that were begun or passed over."""
        self.unreadable: str | None = None
        """Why the metadata told nothing; None if it was read, or empty."""
        self.pauses: dict[int, float] = {}
        """Until when, by the monotonic clock, records wait for their next run, those of earlier owners too."""
        self._max_uncommitted = max_uncommitted
        # In the order of offsets; it alone says what is unsettled below the position.
        self._open: dict[int, None] = {}
        self._begun: deque[int] = deque()
        self._attempts: dict[int, int] = {}
        self._running: set[int] = set()
        self._deaths: dict[int, int] = {}
        self._changes = 0
        progress = self._read(offset, metadata)
        self._starts = [start for start, _ in progress.settled]
        self._stops = [stop for _, stop in progress.settled]
        self._suspects = 0 if progress.clean else progress.window
        self._suspect_until = _END_OF_OFFSETS if self._suspects else offset
        self._restore(progress)
        self._acknowledged = (offset, -1 if progress.clean else 0)

    @property
    def settled_until(self) -> int:
        """The offset from which on no record is settled that was not begun."""
        return max(self.position, self._stops[-1] if self._stops else 0)

    @property
    def base(self) -> int:
        """The lowest offset that is not settled."""
        return self._begun[0] if self._begun else self._settled_from(self.position)

    @property
    def uncommitted(self) -> int:
        """
        How many offsets lie between the last acknowledged commit and the position.

        Begin nothing while it is `max_uncommitted` or more, else the next owner may not suspect all that it should.
        """
        return self.position - self._acknowledged[0]

    @property
    def dirty(self) -> bool:
        """Whether a commit would tell the broker anything new."""
        return self._acknowledged != (self.base, self._changes)

    def begin(self, *offsets: int) -> None:
        """
        Take *offsets* in, in ascending order and unsettled.

        Raises:
            ValueError: The first was taken in or passed over before.
        """
        if offsets[0] < self.position:
            raise ValueError(f"offset {offsets[0]} lies below the position {self.position}")
        self._open.update(dict.fromkeys(offsets))
        self._begun.extend(offsets)
        self.position = offsets[-1] + 1
        for offset in offsets[: self._suspects]:
            self._suspect(offset)

    def fetched(self, next_position: int) -> None:
        """Pass over what lies between the last record and *next_position*: there is no record, or it is settled."""
        self.position = max(self.position, next_position)

    def settle(self, offset: int) -> None:
        """
        Count *offset* as settled.

        Raises:
            KeyError: It is not begun, or settled already.
        """
        open_, begun = self._open, self._begun
        del open_[offset]
        self._changes += 1
        if offset in self._attempts:
            del self._attempts[offset]
            self._running.discard(offset)
            self._deaths.pop(offset, None)
            self.pauses.pop(offset, None)
        while begun and begun[0] not in open_:
            begun.popleft()

    def is_settled(self, offset: int) -> bool:
        """Tell whether *offset* is settled, by this owner or one before, so that it must not be run."""
        if offset < self.position:
            return offset not in self._open
        return self._settled_from(offset) > offset

    def attempt(self, offset: int) -> int:
        """Count a run that begins now and return which one it is, from 1."""
        attempts = self._attempts[offset] = self._attempts.get(offset, 0) + 1
        self._running.add(offset)
        if self.pauses:
            self.pauses.pop(offset, None)
        self._changes += 1
        return attempts

    def ended(self, offset: int, pause: float = 0.0) -> None:
        """
        Note that a run of *offset* has ended unsettled, and the seconds until the next one.

        Whatever ends the process now, it is not that run.
        """
        self._running.discard(offset)
        if pause:
            self.pauses[offset] = time.monotonic() + pause
        self._changes += 1

    def take_back(self, offset: int, pause: float = 0.0) -> None:
        """Note that a run of *offset* has ended unsettled and was none of its attempts; see `ended`."""
        self.ended(offset, pause)
        self._attempts[offset] -= 1
        if not self._attempts[offset] and not pause:
            del self._attempts[offset]

    def is_usual(self, offset: int) -> bool:
        """Tell whether *offset* was never run, has nothing to wait for, and nobody suspects it."""
        return not self.pauses and not self._deaths and offset >= self._suspect_until and offset not in self._attempts

    def pause(self, offset: int) -> float:
        """Return how many seconds *offset* has still to wait for its next run; a new owner keeps that up."""
        until = self.pauses.get(offset)
        return 0.0 if until is None else max(0.0, until - time.monotonic())

    def attempts_of(self, offset: int) -> int:
        """Return how often *offset* was run, by earlier owners too."""
        return self._attempts.get(offset, 0)

    def suspect(self, offset: int) -> bool:
        """Tell whether *offset* may have ended the last owner: then its attempt is committed before each run."""
        return offset < self._suspect_until

    def alone(self, offset: int) -> bool:
        """Tell whether *offset* must run while nothing else does: its runs keep ending with the process."""
        return self._deaths.get(offset, 0) >= DEATHS_BEFORE_ALONE

    def ends_the_process(self, offset: int, max_attempts: int) -> bool:
        """Tell, before a run, that *offset* is to be given up: its last run, alone, ended with the process too."""
        most = max(max_attempts, DEATHS_AT_MOST)
        return self._deaths.get(offset, 0) >= DEATHS_AT_MOST and self.attempts_of(offset) >= most

    def commit(self, *, clean: bool = False, max_characters: int = MAX_CHARACTERS) -> Commit:
        """Return what to commit now; *clean* only when nothing runs any more and nothing will."""
        base = self.base
        window = max(self._max_uncommitted, len(self._begun))
        now = int(time.time())
        # From the monotonic clock to seconds since the second of writing.
        since = time.time() - now - time.monotonic()
        attempts = {at: self._attempts_at(at, clean, since) for at in self._attempts if self._may_come(at)}
        settled = self._settled_runs(base)
        metadata = encode(base, clean, window, settled, attempts, max_characters, written_at=now)
        return Commit(base, metadata, self._changes)

    def committed(self, commit: Commit) -> None:
        """Note that the broker has *commit*; those of one partition are sent one after the other."""
        self._acknowledged = (commit.offset, commit.changes)

    def _read(self, offset: int, metadata: str) -> Progress:
        if metadata:
            try:
                return decode(offset, metadata)
            except MetadataError as exc:
                self.unreadable = str(exc)
        return Progress(clean=True, window=0)

    def _restore(self, progress: Progress) -> None:
        # A clock that was ahead of ours makes nothing wait longer than it had to when that was written.
        since = max(0.0, time.time() - progress.written_at)
        for offset, (made, deaths, running, pause) in progress.attempts.items():
            self._attempts[offset] = made
            if pause > since:
                self.pauses[offset] = time.monotonic() + min(pause - since, LONGEST_PAUSE_SECONDS)
            if deaths or running:
                self._deaths[offset] = deaths + running

    def _suspect(self, offset: int) -> None:
        # Counted in records: where compaction left gaps, offsets say little about how many were begun.
        self._suspects -= 1
        if not self._suspects:
            self._suspect_until = offset + 1

    def _settled_from(self, offset: int) -> int:
        """Return the end of the earlier owner's settled run around *offset*, or *offset* itself."""
        run = bisect_right(self._starts, offset) - 1
        return max(offset, self._stops[run]) if run >= 0 else offset

    def _may_come(self, offset: int) -> bool:
        return offset in self._open or (offset >= self.position and not self.is_settled(offset))

    def _attempts_at(self, offset: int, clean: bool, since: float) -> Attempts:
        running = not clean and offset in self._running
        until = self.pauses.get(offset)
        pause = 0 if until is None else max(0, round(until + since))
        return Attempts(self._attempts[offset], self._deaths.get(offset, 0), running, pause)

    def _settled_runs(self, base: int) -> Iterator[Run]:
        end = base
        if self._open and next(reversed(self._open)) == base + len(self._open) - 1:
            end += len(self._open)  # As mostly, nothing lies between them: to go through them all takes long.
        else:
            for offset in self._open:
                if offset > end:
                    yield end, offset
                end = offset + 1
        known = self._settled_from(self.position)
        if self._open and known > end:
            yield end, known
        for start, stop in zip(self._starts, self._stops, strict=True):
            if start > known:
                yield start, stop

"""Remember which signed messages have been taken, for as long as their time would still be accepted."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MOST = 65_536
"""Messages that are remembered, about 15 MB."""

# The caller has looked at the clock a little earlier than `take` does.
_MARGIN_SECONDS = 2.0

_active: list[Replays] = []


class Replays:
    """
    The messages taken by this process, at most *most* of them.

    Where more arrive than can be remembered, those whose time is not after that of the ones forgotten cannot be told
    from repetitions, and count as such.
    """

    def __init__(self, *, most: int = MOST, clock: Callable[[], float] = time.time) -> None:
        self._most = most
        self._clock = clock
        self._taken: set[str] = set()
        self._by_time: list[tuple[float, float, str]] = []
        self._forgotten_until = float("-inf")

    def __len__(self) -> int:
        return len(self._taken)

    def take(self, message: str, sent_at: float, window_seconds: float) -> bool:
        """
        Return True, once, for a *message* of the time *sent_at*; False if it was taken before, or may have been.

        The caller refuses it himself when *sent_at* is more than *window_seconds* from now.
        """
        self._forget()
        if message in self._taken or sent_at <= self._forgotten_until:
            return False
        self._taken.add(message)
        heapq.heappush(self._by_time, (sent_at, sent_at + window_seconds + _MARGIN_SECONDS, message))
        return True

    def give_back(self, message: str) -> None:
        """Let *message* be taken once more: its call has failed, and senders repeat those."""
        self._taken.discard(message)

    def _forget(self) -> None:
        now = self._clock()
        while self._by_time and self._by_time[0][1] < now:
            self._taken.discard(heapq.heappop(self._by_time)[2])
        while len(self._by_time) >= self._most:
            sent_at, _, message = heapq.heappop(self._by_time)
            self._taken.discard(message)
            self._forgotten_until = max(self._forgotten_until, sent_at)


@contextmanager
def activate_replays(replays: Replays) -> Iterator[None]:
    """Make *replays* the memory of every check of signatures, so that no route takes what another has taken."""
    _active.append(replays)
    try:
        yield
    finally:
        _active.remove(replays)


def current_replays(otherwise: Replays) -> Replays:
    """Return the memory that was activated last, or *otherwise*, in a process that serves no function."""
    return _active[-1] if _active else otherwise

"""Remember which signed messages have been taken, for as long as their time would still be accepted."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MOST = 65_536
"""Messages that are remembered of each signer, about 15 MB."""

# The caller has looked at the clock a little earlier than `take` does.
_MARGIN_SECONDS = 2.0

_active: list[Replays] = []
_widest_seconds = 0.0


class _Signer:
    """What is remembered of the messages that one secret has signed."""

    def __init__(self) -> None:
        self.by_time: list[tuple[float, bytes]] = []
        self.forgotten_until = float("-inf")


class Replays:
    """
    The messages taken by this process, at most *most* of each signer.

    Where more arrive than can be remembered, those whose time is not after that of the ones forgotten cannot be told
    from repetitions, and count as such; many messages of one signer let none of another's be forgotten.
    """

    def __init__(self, *, most: int = MOST, clock: Callable[[], float] = time.time) -> None:
        self._most = most
        self._clock = clock
        self._taken: set[bytes] = set()
        self._signers: dict[str, _Signer] = {}
        self._window_seconds = 0.0

    def __len__(self) -> int:
        return len(self._taken)

    def widen(self, window_seconds: float) -> None:
        """Remember messages until their time is *window_seconds* ago, or as long as was asked for before if longer."""
        self._window_seconds = max(self._window_seconds, window_seconds)

    def take(
        self, message: bytes, sent_at: float, window_seconds: float, *, signer: str = "", in_doubt: bool = False
    ) -> bool:
        """
        Return True, once, for a *message* (its digest) of the time *sent_at*; False if it was taken before.

        One that may have been taken, and was forgotten since, is what *in_doubt* says.  The caller refuses it himself
        when *sent_at* is more than *window_seconds* from now.  *signer* is the name of the secret that has signed it.
        """
        self.widen(window_seconds)
        its = self._signers.setdefault(signer, _Signer())
        self._forget(its)
        if message in self._taken or (sent_at <= its.forgotten_until and not in_doubt):
            return False
        self._taken.add(message)
        heapq.heappush(its.by_time, (sent_at, message))
        return True

    def give_back(self, message: bytes) -> None:
        """Let *message* be taken once more: its call has failed, and senders repeat those."""
        self._taken.discard(message)

    def _forget(self, its: _Signer) -> None:
        expired = self._clock() - self._window_seconds - _MARGIN_SECONDS
        while its.by_time and its.by_time[0][0] < expired:
            self._taken.discard(heapq.heappop(its.by_time)[1])
        while len(its.by_time) >= self._most:
            sent_at, message = heapq.heappop(its.by_time)
            self._taken.discard(message)
            its.forgotten_until = max(its.forgotten_until, sent_at)


def expect(window_seconds: float) -> None:
    """
    Let the memory of the process, which may be made later, reach back *window_seconds*.

    What a strict check has taken must not be forgotten while a patient one would still accept it.
    """
    global _widest_seconds
    _widest_seconds = max(_widest_seconds, window_seconds)
    for replays in _active:
        replays.widen(_widest_seconds)


@contextmanager
def activate_replays(replays: Replays) -> Iterator[None]:
    """Make *replays* the memory of every check of signatures, so that no route takes what another has taken."""
    replays.widen(_widest_seconds)
    _active.append(replays)
    try:
        yield
    finally:
        _active.remove(replays)


def current_replays(otherwise: Replays) -> Replays:
    """Return the memory that was activated last, or *otherwise*, in a process that serves no function."""
    return _active[-1] if _active else otherwise

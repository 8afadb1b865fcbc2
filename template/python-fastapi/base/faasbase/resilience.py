"""What keeps a failing dependency from failing its callers: a circuit breaker, and back-off with jitter."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from enum import Enum

_FIRST_LOOK_SECONDS, _LONGEST_PAUSE_SECONDS = 0.02, 0.25


class State(Enum):
    """What a breaker lets through: everything, nothing, or one try."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """
    Stop asking what has failed *failures* times in a row, for *open_seconds*; then let one try decide.

    Whoever was allowed tells how it went by `succeeded` or `failed`.  A try that tells nothing is given up after
    another *open_seconds*.  *on_change* is called with each new state.  Belongs to one event loop or thread; *clock*
    gives seconds and must not go backwards.
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        open_seconds: float = 1.0,
        on_change: Callable[[State], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if failures < 1 or not open_seconds > 0:
            raise ValueError("a breaker needs at least one failure, and more than zero seconds")
        self._limit, self._open_seconds = failures, open_seconds
        self._on_change, self._clock = on_change, clock
        self._failures = 0
        self._until = 0.0
        self.state = State.CLOSED

    @property
    def closed(self) -> bool:
        """Whether everything is let through."""
        return self.state is State.CLOSED

    def allow(self) -> bool:
        """Tell whether to ask now; after `open_seconds` exactly one caller is told yes."""
        if self.state is State.CLOSED:
            return True
        now = self._clock()
        if now < self._until:
            return False
        self._until = now + self._open_seconds
        self._become(State.HALF_OPEN)
        return True

    def succeeded(self) -> None:
        """Note an answer: the failures before it no longer count, and a try closes the breaker."""
        self._failures = 0
        # What was asked before the breaker opened may be answered late, and says nothing of now.
        if self.state is State.HALF_OPEN:
            self._become(State.CLOSED)

    def failed(self) -> None:
        """Note a failure, which opens the breaker if it is one too many, or the try's."""
        self._failures += 1
        if self.state is State.HALF_OPEN or (self.closed and self._failures >= self._limit):
            self._until = self._clock() + self._open_seconds
            self._become(State.OPEN)

    def _become(self, state: State) -> None:
        if state is not self.state:
            self.state = state
            if self._on_change is not None:
                self._on_change(state)


def backoff(
    attempt: int,
    base_seconds: float,
    cap_seconds: float,
    rng: Callable[[], float] = random.random,
) -> float:
    """
    Return how long to wait before repeat *attempt*, the first being 0: up to *base_seconds*, doubled each time.

    Full jitter, so that those who failed together do not come back together; *rng* gives numbers from 0 to 1.
    """
    # 2 ** 1024 is no float any more.
    return min(cap_seconds, base_seconds * 2.0 ** min(attempt, 63)) * rng()


def look_pause(looks: int) -> float:
    """Return how long to wait, after *looks* looks for what somebody else is making, before the next."""
    # Half of it for certain: a pause of nothing would ask again at once, and all replicas at the same time.
    longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_LOOK_SECONDS * 1.5 ** min(looks, 20))
    return longest / 2 + backoff(0, longest / 2, longest / 2)

"""When a function that does not run is started again."""

from __future__ import annotations

import math
import time

CRASH_SECONDS = (0.5, 30.0)
"""After a crash: the first wait and the longest, each twice the one before."""
START_SECONDS = (2.0, 30.0)
"""After a failed start, which only a change of code or a server that comes back can mend."""
STABLE_SECONDS = 30.0
"""A process that served this long has its crash answered by the first wait again."""


class Restarts:
    """The waits between the starts of one function."""

    def __init__(self) -> None:
        self._crash_seconds = CRASH_SECONDS[0]
        self._start_seconds = START_SECONDS[0]
        self._due: float | None = None

    def crashed(self, served_seconds: float) -> float:
        """Return the wait after a crash."""
        if served_seconds > STABLE_SECONDS:
            self._crash_seconds = CRASH_SECONDS[0]
        wait = self._crash_seconds
        self._crash_seconds = min(wait * 2, CRASH_SECONDS[1])
        return self._after(wait)

    def start_failed(self) -> float:
        """Return the wait after a failed start."""
        wait = self._start_seconds
        self._start_seconds = min(wait * 2, START_SECONDS[1])
        return self._after(wait)

    def only_after_a_change(self) -> float:
        """Return the wait where another attempt would be as vain: for ever."""
        self._due = None
        return math.inf

    def started(self) -> None:
        """Forget the starts that failed; crashes count on."""
        self._start_seconds = START_SECONDS[0]

    def changed(self) -> None:
        """Begin anew: the code is another."""
        self._crash_seconds, self._start_seconds = CRASH_SECONDS[0], START_SECONDS[0]

    @property
    def due_seconds(self) -> float | None:
        """Return how long it is until the next start; ``None`` if none is due."""
        return None if self._due is None else max(0.0, self._due - time.monotonic())

    def _after(self, wait: float) -> float:
        self._due = time.monotonic() + wait
        return wait

"""What a process writes: kept for `/system/logs`, shown on the terminal, and asked for the reason of its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from itertools import takewhile

from rendering import TRACEBACK, Source, condensed, log_entry, readable, summary

REMEMBERED_LINES = 60
REMEMBERED_CHARACTERS = 8192
HELD_LINES = 200
OWN_LOGGER = "faasbase"
FAILED = ("start failed: ", "failed: ")
"""How the one critical line begins that the base leaves when it ends by itself."""


class Output:
    """Take the lines of one process."""

    def __init__(
        self, source: Source, keep: Callable[[str], None], show: Callable[[str], None], *, held: bool = False
    ) -> None:
        self._source = source
        self._keep = keep
        self._show = show
        self._held: deque[str] | None = deque(maxlen=HELD_LINES) if held else None
        self._unstructured: deque[str] = deque(maxlen=REMEMBERED_LINES)
        self.failure: str | None = None
        """What the base said of its own end: never a line of the handler's, which may hold what a caller sent."""
        self._trace: list[str] = []

    def add(self, text: str) -> None:
        """Take a line."""
        self._keep(text)
        entry = log_entry(text)
        if entry is None:
            self._unstructured.append(text[:REMEMBERED_CHARACTERS])
        elif entry.get("logger") == OWN_LOGGER and entry["message"].startswith(FAILED):
            # Who reports the end shows this, once and with what follows from it.
            self.failure = entry["message"]
            self._trace = condensed(str(entry.get("exception", "")), self._source)
            return
        shown = text if entry is None else readable(entry, self._source)
        (self._show if self._held is None else self._held.append)(shown)

    def release(self) -> None:
        """Show what was held back, and every line from now on."""
        held, self._held = self._held, None
        for text in held or ():
            self._show(text)

    def explained(self, reason: str) -> str:
        """Return *reason* for the terminal: places as the project has them, and the traceback that led to it."""
        lines = self._source.mapped(reason).split("\n")
        if self.failure is not None:
            # The exception itself mostly is the end of the reason.
            lines += self._trace[:-1] if self._trace and self._trace[-1] in reason else self._trace
        elif found := _last_traceback([*self._unstructured]):
            # It stands above, as it was written: here is where to look.
            lines.append(summary(found, self._source))
        return "\n".join(f"  {line}" for line in lines)


def _last_traceback(lines: Sequence[str]) -> list[str] | None:
    after = list(takewhile(lambda line: not line.startswith(TRACEBACK), reversed(lines)))
    return after[::-1] if len(after) < len(lines) else None

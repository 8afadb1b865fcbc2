"""What the command prints: results on standard output, everything else on standard error."""

from __future__ import annotations

import sys
import time

_BAR_CHARACTERS = 24
_DRAWN_EVERY_SECONDS = 0.1
_TOLD_EVERY_SECONDS = 10.0


class Terminal:
    """Standard output and error, the latter with a bar of progress where it is a terminal, else now and then a line."""

    def __init__(self) -> None:
        self._draws = sys.stderr.isatty()
        self._every_seconds = _DRAWN_EVERY_SECONDS if self._draws else _TOLD_EVERY_SECONDS
        self._told_at = time.monotonic()
        self._drawn = False

    def say(self, line: str) -> None:
        """Print a result."""
        self.clear()
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()

    def warn(self, line: str) -> None:
        """Print what is no result."""
        self.clear()
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    def progress(self, seen: int, total: int, said: str) -> None:
        """Show that *seen* letters of *total* have been looked at, and what has become of them."""
        now = time.monotonic()
        if now - self._told_at < self._every_seconds:
            return
        self._told_at = now
        if not self._draws:
            self.warn(f"{seen} of {total} looked at, {said}")
            return
        full = _BAR_CHARACTERS * min(seen, total) // max(total, 1)
        sys.stderr.write(f"\r\x1b[K[{'#' * full:{_BAR_CHARACTERS}}] {seen}/{total} {said}")
        sys.stderr.flush()
        self._drawn = True

    def clear(self) -> None:
        """Take the bar away."""
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._drawn = False

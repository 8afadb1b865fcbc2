"""The terminal of ``up``: what the supervisor says, and the functions' own lines with their names before them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True)
class Terminal:
    """Write whole lines at once, so that those of different functions never mix."""

    out: TextIO = sys.stdout
    error: TextIO = sys.stderr

    def say(self, text: str) -> None:
        """Print a line of the supervisor's own."""
        _write(self.out, text)

    def complain(self, text: str) -> None:
        """Print what keeps ``up`` from going on."""
        _write(self.error, text)

    def log(self, name: str, text: str) -> None:
        """Print what the function *name* wrote, its name before each line."""
        _write(self.out, "\n".join(f"{name} | {line}" for line in text.split("\n")))


def _write(stream: TextIO, text: str) -> None:
    # A terminal that cannot show a character must not end the reading of a function's output.
    encoding = stream.encoding or "utf-8"
    shown = text.encode(encoding, "backslashreplace").decode(encoding)
    try:
        stream.write(shown + "\n")
        stream.flush()
    except BrokenPipeError:
        # The reader (``up | head``) is gone; the functions go on, and /system/logs still has their lines.
        return

"""
End the functions when the supervisor was killed and cannot do it itself.

A process of its own that reads ``+<group>`` and ``-<group>`` lines.  Their end means that the supervisor is gone: what
is still listed then is killed with all that it started, at once, since nobody is left to answer to.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import TextIO


def guard(lines: TextIO) -> None:
    """Follow *lines* to their end, then kill the process groups that are left."""
    groups: set[int] = set()
    for line in lines:
        group = int(line[1:])
        if line.startswith("+"):
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)


if __name__ == "__main__":
    guard(sys.stdin)

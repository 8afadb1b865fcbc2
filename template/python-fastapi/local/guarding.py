"""The supervisor's side of `guardian`: it tells which process groups must not outlive it."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

END_SECONDS = 5.0


class Guardian:
    """A process that kills the watched groups when this one dies without having stopped them."""

    def __init__(self, child: asyncio.subprocess.Process, lines: asyncio.StreamWriter) -> None:
        self._child = child
        self._lines = lines

    def watch(self, group: int) -> None:
        """Kill the process group *group* if this process dies."""
        self._tell(f"+{group}")

    def forget(self, group: int) -> None:
        """Let go of a group that has ended, before the system gives its number to another."""
        self._tell(f"-{group}")

    async def end(self) -> None:
        """Let the guardian go; all groups have ended."""
        self._lines.close()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._child.wait(), END_SECONDS)

    def _tell(self, line: str) -> None:
        # A few bytes into an empty pipe: there is nothing to wait for.
        self._lines.write(f"{line}\n".encode())


async def start_guardian() -> Guardian:
    """Start the guardian, away from the terminal's signals."""
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        Path(__file__).with_name("guardian.py"),
        stdin=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    if child.stdin is None:
        raise RuntimeError("the guardian has no pipe")
    return Guardian(child, child.stdin)

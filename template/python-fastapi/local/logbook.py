"""The last lines that the functions wrote, for ``/system/logs``, and the readers that follow them."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

KEPT_LINES = 1000
"""Lines kept of each function, and lines that wait for a reader that is slow: the oldest give way."""
KEPT_CHARACTERS = 16 * 1024
"""Characters kept of a line, so that a function's memory here has a bound; the terminal shows the whole line."""


@dataclass(frozen=True)
class Line:
    """A line of a function's output."""

    name: str
    namespace: str
    instance: str
    time: datetime
    text: str


class Reader:
    """A bounded queue of new lines; ``None`` is its end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._lines: asyncio.Queue[Line | None] = asyncio.Queue(KEPT_LINES)

    def put(self, line: Line | None) -> None:
        """Add a line at once; the oldest gives way to it."""
        if self._lines.full():
            self._lines.get_nowait()
        self._lines.put_nowait(line)

    async def get(self) -> Line | None:
        """Return the next line, or ``None`` when the logbook has been closed."""
        return await self._lines.get()


class Logbook:
    """Keep each function's last lines."""

    def __init__(self) -> None:
        self._lines: defaultdict[str, deque[Line]] = defaultdict(lambda: deque(maxlen=KEPT_LINES))
        self._readers: set[Reader] = set()
        self._closed = False

    def add(self, line: Line) -> None:
        """Keep *line* and hand it to those who follow the function."""
        self._lines[line.name].append(line)
        for reader in self._readers:
            if reader.name == line.name:
                reader.put(line)

    def lines(self, name: str, *, since: datetime | None = None, tail: int = 0) -> list[Line]:
        """Return the lines of a function, oldest first: the last *tail*, or all with 0 or less."""
        kept = [line for line in self._lines[name] if since is None or line.time >= since]
        return kept[-tail:] if tail > 0 else kept

    @contextmanager
    def follow(self, name: str) -> Iterator[Reader]:
        """Give a reader of the lines that the function *name* writes from now on."""
        reader = Reader(name)
        self._readers.add(reader)
        if self._closed:
            reader.put(None)
        try:
            yield reader
        finally:
            self._readers.discard(reader)

    def close(self) -> None:
        """End every reader, so that nothing waits for lines of functions that stop."""
        self._closed = True
        for reader in self._readers:
            reader.put(None)

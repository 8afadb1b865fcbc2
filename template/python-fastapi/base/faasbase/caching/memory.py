"""The cache of one process: bounded in entries and bytes, the least recently used goes first."""

import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import NamedTuple

from ..backends import counts_in_query

MAX_ENTRIES = 10_000
MAX_BYTES = 32 * 1024 * 1024


class _Entry(NamedTuple):
    value: bytes
    expires_at: float
    size_bytes: int


class MemoryCache:
    """
    Keep values in this process, at most *max_entries* of them and *max_bytes* of keys and values together.

    A value larger than *max_bytes* is not kept.  *clock* gives seconds and must not go backwards.
    """

    never_waits = True
    """Whether no method ever waits for anything, so that no event loop is needed."""

    def __init__(
        self,
        *,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._max_entries, self._max_bytes, self._clock = max_entries, max_bytes, clock
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._size_bytes = 0
        # Handlers that are a plain `def` come from threads where no event loop is running (unit tests, scripts).
        self._lock = Lock()

    @classmethod
    def from_url(cls, url: str) -> "MemoryCache":
        """Read the bounds from ``memory://?max_entries=…&max_bytes=…``."""
        defaults = {"max_entries": MAX_ENTRIES, "max_bytes": MAX_BYTES}
        bounds = counts_in_query("CACHE_URL", url, defaults)
        return cls(max_entries=bounds["max_entries"], max_bytes=bounds["max_bytes"])

    async def get(self, key: str) -> bytes | None:
        return self.find(key)

    async def set(self, key: str, value: bytes, ttl_seconds: float) -> None:
        self.keep(key, value, ttl_seconds)

    async def delete(self, key: str) -> None:
        self.forget(key)

    async def close(self) -> None:
        self.clear()

    def find(self, key: str) -> bytes | None:
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            if entry.expires_at <= self._clock():
                self._remove(key)
                return None
            self._entries.move_to_end(key)
            return entry.value

    def keep(self, key: str, value: bytes, ttl_seconds: float) -> None:
        size_bytes = len(key.encode("utf-8", "surrogatepass")) + len(value)
        with self._lock:
            self._remove(key)
            if size_bytes > self._max_bytes:
                return
            self._entries[key] = _Entry(value, self._clock() + ttl_seconds, size_bytes)
            self._size_bytes += size_bytes
            self._evict()

    def forget(self, key: str) -> None:
        with self._lock:
            self._remove(key)

    def clear(self) -> None:
        with self._lock:
            self._entries.clear()
            self._size_bytes = 0

    def _evict(self) -> None:
        while len(self._entries) > self._max_entries or self._size_bytes > self._max_bytes:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._size_bytes -= entry.size_bytes

"""Values that are also kept in this process for a moment, in front of the server that has them."""

from __future__ import annotations

from .memory import MemoryCache

MAX_ENTRIES = 2_000
MAX_BYTES = 8 * 1024 * 1024


class FirstLevel:
    """
    Keep values for *ttl_seconds* at most, whatever the server does with them; zero keeps nothing.

    An invalidation in this process is seen at once, one by another replica when the time is over.
    """

    def __init__(self, ttl_seconds: float) -> None:
        self._ttl_seconds = ttl_seconds
        self._values = MemoryCache(max_entries=MAX_ENTRIES, max_bytes=MAX_BYTES)
        self._invalidations = 0

    @property
    def on(self) -> bool:
        return self._ttl_seconds > 0

    def get(self, key: str) -> bytes | None:
        return self._values.find(key) if self._ttl_seconds else None

    def asked(self) -> int:
        """Return what `keep` is told of the moment at which the server was asked."""
        return self._invalidations

    def keep(self, key: str, value: bytes, ttl_seconds: float, asked: int) -> None:
        """Keep *value*, unless something was invalidated since *asked*: it may have been this."""
        if self._ttl_seconds and asked == self._invalidations:
            self._values.keep(key, value, min(ttl_seconds, self._ttl_seconds))

    def forget(self, key: str) -> None:
        if self._ttl_seconds:
            self._invalidations += 1
            self._values.forget(key)

    def clear(self) -> None:
        self._values.clear()

"""What could not be told to the server and must be before it is used again: entries to forget, leases to end."""

from __future__ import annotations

from collections import OrderedDict

MAX_DEBTS = 10_000
"""The oldest go first: then an entry may come back that was invalidated during an outage, until its time is over."""


class Debts:
    """Remembers what the server missed, by key."""

    def __init__(self) -> None:
        self._forget: OrderedDict[str, object] = OrderedDict()
        self._release: OrderedDict[str, str] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._forget or self._release)

    def outdated(self, key: str) -> bool:
        """Tell whether what the server has under *key* must not be used."""
        return bool(self._forget) and key in self._forget

    def forget(self, key: str) -> None:
        """Note that *key* was invalidated."""
        self._forget[key] = object()
        if len(self._forget) > MAX_DEBTS:
            self._forget.popitem(last=False)

    def release(self, key: str, token: str) -> None:
        """Note that *token* may own the lease of *key*, and that nobody is loading."""
        self._release[key] = token
        if len(self._release) > MAX_DEBTS:
            self._release.popitem(last=False)

    def mark(self, key: str) -> object | None:
        """Return what `settled` is told of this moment: which invalidation of *key* is owed, None if none is."""
        return self._forget.get(key)

    def settled(self, key: str, mark: object | None) -> None:
        """Note that the server was told to forget *key* after *mark* was taken: what is owed since then still is."""
        if mark is not None and self._forget.get(key) is mark:
            del self._forget[key]

    def to_forget(self) -> list[str]:
        return list(self._forget)

    def take_releases(self) -> list[tuple[str, str]]:
        """Return keys and tokens of the leases to end, which are not remembered any more: they end by themselves."""
        taken = list(self._release.items())
        self._release.clear()
        return taken

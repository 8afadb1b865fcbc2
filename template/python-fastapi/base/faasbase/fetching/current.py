"""The fetcher of this process, as ``FETCH_*`` settings make it; handlers call `fetch` and `stream`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from .policy import FetchPolicy

if TYPE_CHECKING:
    from .answers import Answer, Fetched
    from .fetcher import Fetcher


class _Active:
    """A policy, and the fetcher that its first use makes."""

    def __init__(self, made: Fetcher | FetchPolicy) -> None:
        self._made = made

    @property
    def fetcher(self) -> Fetcher:
        if isinstance(self._made, FetchPolicy):
            from .fetcher import Fetcher

            self._made = Fetcher(self._made)
        return self._made

    def close(self) -> None:
        if not isinstance(self._made, FetchPolicy):
            self._made.close()


_active: list[_Active] = []


@contextmanager
def activate_fetcher(fetcher: Fetcher | FetchPolicy) -> Iterator[None]:
    """Make *fetcher*, or one with this policy, what `current_fetcher` returns, and close it at the end."""
    active = _Active(fetcher)
    _active.append(active)
    try:
        yield
    finally:
        _active.remove(active)
        active.close()


def current_fetcher() -> Fetcher:
    """
    Return the fetcher of this process.

    Raises:
        RuntimeError: None is active, which means outside a running function and its tests.
    """
    if not _active:
        raise RuntimeError("no fetcher is active: use activate_fetcher(FetchPolicy())")
    return _active[-1].fetcher


async def fetch(url: str, **options: Any) -> Fetched:
    """Fetch *url* within the function's own policy; see `Fetcher.fetch` for *options* and errors."""
    return await current_fetcher().fetch(url, **options)


def stream(url: str, **options: Any) -> AbstractAsyncContextManager[Answer]:
    """Give the answer of *url* while its body arrives; see `Fetcher.stream` for *options* and errors."""
    return current_fetcher().stream(url, **options)

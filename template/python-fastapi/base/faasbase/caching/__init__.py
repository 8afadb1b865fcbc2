"""
Cache the results of functions: ``@cached(ttl="10m")``, or `Cache` itself for anything else.

    cache.py        what users hold: fails open, one load at a time per key
    blocking.py     the same for plain ``def`` functions in threads
    decorator.py    ``@cached`` on ``async def`` and ``def``
    keys.py         names of entries: function, version and content
    values.py       results to JSON and back, through pydantic
    flights.py      one load at a time per key among tasks and among threads
    operations.py   spans, metrics and the back end's errors
    backend.py      the protocol of back ends, and which URL scheme means which
    memory.py       the back end of ``memory://``
    dependency.py   `CacheDep` for FastAPI handlers
"""

from typing import TYPE_CHECKING, Any

from .backend import CacheBackend, CacheError
from .cache import Cache, activate_cache, current_cache, open_cache
from .decorator import cached

if TYPE_CHECKING:
    from .dependency import CacheDep

__all__ = [
    "Cache",
    "CacheBackend",
    "CacheDep",
    "CacheError",
    "activate_cache",
    "cached",
    "current_cache",
    "open_cache",
]


def __getattr__(name: str) -> Any:
    # FastAPI costs 0.3 s to import, which a script or a test of one cached function need not pay.
    if name == "CacheDep":
        from .dependency import CacheDep

        return CacheDep
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

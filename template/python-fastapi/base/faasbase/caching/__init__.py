"""
Cache the results of functions: ``@cached(ttl="10m")``, or `Cache` itself for anything else.

    cache.py        what users hold: fails open, one load at a time per key
    blocking.py     the same for plain ``def`` functions in threads
    decorator.py    ``@cached`` on ``async def`` and ``def``
    keeping.py      how long a value, none, or the news that there is nothing is kept
    keys.py         names of entries: function, version and content
    values.py       results to JSON and back, through pydantic
    flights.py      one load at a time per key among tasks and among threads
    leases.py       the same among replicas
    budget.py       what the cache may add to one call, all its steps together
    entries.py      the entries of one function, first level and size limits
    first_level.py  values kept in this process for a moment as well
    operations.py   spans, metrics and the back end's errors
    owned.py        work that no call waits for
    backend.py      the protocols of back ends, and which URL scheme means which
    options.py      what ``CACHE_URL`` may say beside the place
    memory.py       the back end of ``memory://``
    redis.py        the back end of ``redis://``, with scripts.py, guard.py (outages) and debts.py (what it missed)
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

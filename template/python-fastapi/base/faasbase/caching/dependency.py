"""The cache as a FastAPI dependency; apart, since it alone needs FastAPI."""

from typing import Annotated

from fastapi import Depends

from .cache import Cache, current_cache


async def _cache() -> Cache:
    # FastAPI would run a plain function in a thread, which costs more than the look-up.
    return current_cache()


CacheDep = Annotated[Cache, Depends(_cache)]

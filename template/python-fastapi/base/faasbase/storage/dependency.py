"""The store as a FastAPI dependency; apart, since it alone needs FastAPI."""

from typing import Annotated

from fastapi import Depends

from .store import Store, current_store


async def _store() -> Store:
    # FastAPI would run a plain function in a thread, which costs more than the look-up.
    return current_store()


StoreDep = Annotated[Store, Depends(_store)]

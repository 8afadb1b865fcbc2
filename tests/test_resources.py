"""What a function has opened is closed at its end, whatever else goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from faasbase.app import resources
from faasbase.caching import backend as caches
from faasbase.caching.memory import MemoryCache
from faasbase.errors import SettingError
from faasbase.settings import Settings
from faasbase.storage import backend as stores
from faasbase.storage.files import FileStore

pytestmark = pytest.mark.anyio

CLOSED: list[str] = []


class FragileCache(MemoryCache):
    """A cache whose end is noted, and fails where that is wanted."""

    fails: ClassVar[bool] = False

    @classmethod
    def from_url(cls, url: str) -> FragileCache:
        return cls()

    async def close(self) -> None:
        CLOSED.append("cache")
        await super().close()
        if self.fails:
            raise RuntimeError("the cache cannot be closed")


class NotedStore(FileStore):
    """A store whose end is noted."""

    async def close(self) -> None:
        CLOSED.append("store")
        await super().close()


@pytest.fixture(autouse=True)
def backends(monkeypatch: pytest.MonkeyPatch) -> None:
    CLOSED.clear()
    monkeypatch.setitem(caches.BACKENDS, "fragile", f"{__name__}:FragileCache")
    monkeypatch.setitem(stores.BACKENDS, "file", f"{__name__}:NotedStore")


async def test_cache_is_closed_where_the_store_cannot_be_opened() -> None:
    with pytest.raises(SettingError):
        async with resources(Settings(cache_url="fragile://", storage_url="gopher://")):
            pass
    assert CLOSED == ["cache"]


async def test_store_is_closed_where_the_cache_cannot_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(FragileCache, "fails", True)
    with pytest.raises(RuntimeError, match="cannot be closed"):
        async with resources(Settings(cache_url="fragile://", storage_url=tmp_path.as_uri())):
            pass
    assert sorted(CLOSED) == ["cache", "store"]

"""How much a store holds, and of what."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from faasbase import Store

OTHERS = "others"
MAX_FOLDERS = 100


@dataclass(slots=True)
class Usage:
    """Number and size of objects, and the bytes of each folder at the top."""

    objects: int = 0
    total_bytes: int = 0
    folders: dict[str, int] = field(default_factory=dict)

    def add(self, key: str, size_bytes: int) -> None:
        """Count one object; folders beyond `MAX_FOLDERS` are counted together."""
        self.objects += 1
        self.total_bytes += size_bytes
        folder = key.partition("/")[0] if "/" in key else ""
        if folder not in self.folders and len(self.folders) >= MAX_FOLDERS:
            folder = OTHERS
        self.folders[folder] = self.folders.get(folder, 0) + size_bytes

    def as_json(self) -> bytes:
        """Return the report."""
        return json.dumps(asdict(self), sort_keys=True).encode("utf-8")


async def measure(store: Store) -> Usage:
    """Count all objects of *store*; its memory does not grow with their number."""
    usage = Usage()
    async for stored in store.list():
        usage.add(stored.key, stored.size_bytes)
    return usage

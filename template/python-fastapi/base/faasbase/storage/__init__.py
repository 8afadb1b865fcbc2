"""
Store objects: bytes, files and streams under keys, and URLs by which anyone may fetch them for a time.

    store.py        what users hold: checks keys, addresses by content, makes spans
    objects.py      `StoredObject`, and what a key may be
    errors.py       what can go wrong, each with the key
    backend.py      the protocol of back ends, and which URL scheme means which
    files.py        the back end of ``file:///``: a folder
    uploads.py      how one file gets into that folder, whole or not at all
    sidecars.py     content type and checksum beside each file
    links.py        signed URLs of that folder's objects
    serving.py      the ASGI app that answers them
    dependency.py   `StoreDep` for FastAPI handlers
"""

from typing import TYPE_CHECKING, Any

from .backend import Source, StoreBackend
from .errors import ChecksumError, ObjectKeyError, ObjectNotFoundError, ObjectTooLargeError, StorageError
from .objects import StoredObject
from .store import Store, activate_store, current_store, open_store

if TYPE_CHECKING:
    from .dependency import StoreDep

__all__ = [
    "ChecksumError",
    "ObjectKeyError",
    "ObjectNotFoundError",
    "ObjectTooLargeError",
    "Source",
    "StorageError",
    "Store",
    "StoreBackend",
    "StoreDep",
    "StoredObject",
    "activate_store",
    "current_store",
    "open_store",
]


def __getattr__(name: str) -> Any:
    # FastAPI costs 0.3 s to import, which a script that only moves objects need not pay.
    if name == "StoreDep":
        from .dependency import StoreDep

        return StoreDep
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

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
    threads.py      blocking work off the event loop
    shielding.py    work that must end, even where its caller is cancelled

    s3.py           the back end of ``s3://``: a bucket
    s3_location.py  which one, and how to reach it
    s3_client.py    requests with one deadline over all their repetitions
    s3_library.py   what is needed of aioboto3, imported late
    s3_session.py   aioboto3 itself, with what it lacks
    s3_credentials.py  keys from secret files, replaced without a failed call
    s3_failures.py  which error of theirs is which of ours
    s3_records.py   spans, metrics, and one log line for what ails the store
    s3_parts.py     bytes, files and streams in parts of equal size
    s3_uploads.py   one object on its way there
    s3_downloads.py one on its way here
    s3_digests.py   the SHA-256 of objects, and where it stands
"""

from typing import TYPE_CHECKING, Any

from .backend import Source, StoreBackend
from .errors import (
    ChecksumError,
    ObjectChangedError,
    ObjectKeyError,
    ObjectNotFoundError,
    ObjectTooLargeError,
    StorageError,
    StoreDeniedError,
    StoreUnavailableError,
)
from .objects import StoredObject
from .store import Store, activate_store, current_store, open_store

if TYPE_CHECKING:
    from .dependency import StoreDep

__all__ = [
    "ChecksumError",
    "ObjectChangedError",
    "ObjectKeyError",
    "ObjectNotFoundError",
    "ObjectTooLargeError",
    "Source",
    "StorageError",
    "Store",
    "StoreBackend",
    "StoreDeniedError",
    "StoreDep",
    "StoreUnavailableError",
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

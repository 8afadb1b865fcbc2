"""Signed, expiring addresses of objects: ``/_/objects/<key>?expires=<unix time>&signature=<HMAC>``."""

import hmac
import os
import secrets
import time
from collections.abc import Callable
from hashlib import sha256
from math import ceil
from pathlib import Path
from urllib.parse import quote, urlencode

from .errors import StorageError
from .sidecars import write_synced

OBJECTS_PATH = "/_/objects/"

_KEY_BYTES = 32


class Links:
    """Signs and checks the addresses of the objects in one folder, with the key that lies in it."""

    def __init__(self, signing_key: bytes, clock: Callable[[], float] = time.time) -> None:
        self._signing_key, self._clock = signing_key, clock

    def path(self, key: str, expires_seconds: float) -> str:
        """Return path and query of the object *key*, good for *expires_seconds*."""
        expires = ceil(self._clock() + expires_seconds)
        query = urlencode({"expires": expires, "signature": self._signature(key, str(expires))})
        return f"{OBJECTS_PATH}{quote(key)}?{query}"

    def upload_path(self, key: str, content_type: str, size_bytes: int | None, expires_seconds: float) -> str:
        """Return path and query by which the object *key* may be PUT, of this type, and of this size if any."""
        expires, size = str(ceil(self._clock() + expires_seconds)), "" if size_bytes is None else str(size_bytes)
        signed = {"content_type": content_type, "expires": expires, "size": size}
        signature = self._signature(key, expires, "PUT", content_type, size)
        return f"{OBJECTS_PATH}{quote(key)}?{urlencode({**signed, 'signature': signature})}"

    def seconds_left(self, key: str, expires: str, signature: str, *method: str) -> float | None:
        """Return how long an address is still good, or None if it is not; *method* is as in `upload_path`'s."""
        given, right = signature.encode(), self._signature(key, expires, *method).encode()
        if not hmac.compare_digest(given, right):
            return None
        left = int(expires) - self._clock()
        return left if left > 0 else None

    def _signature(self, key: str, expires: str, *method: str) -> str:
        # A line each: no key and time can be cut in another way to give the same text.
        message = "\n".join((*(method or ("GET",)), expires, key)).encode("utf-8", "surrogatepass")
        return hmac.new(self._signing_key, message, sha256).hexdigest()


def load_signing_key(root: Path) -> bytes:
    """
    Return the signing key in the folder *root*, made by whichever process comes first.

    Raises:
        OSError: It can be neither read nor made.
        StorageError: The file is there and holds no key.
    """
    path = root / ".signing-key"
    if not path.exists():
        _make_signing_key(path)
    signing_key = path.read_bytes()
    if len(signing_key) != _KEY_BYTES:
        raise StorageError("sign", "", f"{path.name} is damaged; without it, addresses given out so far end")
    return signing_key


def _make_signing_key(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    own = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        write_synced(own, secrets.token_bytes(_KEY_BYTES))
        # Unlike a rename, a link fails where another process was faster, and its key stays the only one.
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        own.unlink(missing_ok=True)

"""One object of S3 on its way here: in bounded memory, resumed where the connection breaks, checked at the end."""

import asyncio
import time
from collections.abc import AsyncIterator
from hashlib import sha256
from typing import Any

from .errors import ChecksumError, ObjectChangedError, StorageError
from .objects import DEFAULT_CONTENT_TYPE, StoredObject
from .s3_client import S3Client
from .s3_digests import Notes, sha256_of, upload_of
from .s3_failures import failure_of, storage_error
from .s3_library import library_errors

_PIECE_BYTES = 256 * 1024


class Download:
    """One version of the object *key*; `close` is the last call, always."""

    def __init__(self, client: S3Client, key: str) -> None:
        self._client, self._key = client, key
        self._seconds = client.location.timeout_seconds
        self._name = client.location.prefix + key
        self._body: Any = None
        self._etag = ""
        self._offset = 0

    async def start(self) -> StoredObject:
        """Return what is known of the object, once its bytes are on their way."""
        answer = await self._client.call("GetObject", "get", self._key, Key=self._name)
        self._body, self._etag = answer["Body"], answer.get("ETag", "")
        self._stored = await described(self._client, self._key, answer)
        return self._stored

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the bytes; `ChecksumError` instead of the end where they are not those that were stored."""
        digest = sha256()
        while self._offset < self._stored.size_bytes:
            piece = await self._piece()
            digest.update(piece)
            self._offset += len(piece)
            yield piece
        if self._stored.sha256 not in ("", digest.hexdigest()):
            raise ChecksumError("get", self._key)

    def close(self) -> None:
        """Give up the connection, unless everything has been read and it can be used again."""
        if self._body is not None:
            self._body.close()
            self._body = None

    async def _piece(self) -> bytes:
        end = time.monotonic() + self._seconds
        while True:
            try:
                async with asyncio.timeout(min(self._seconds / 2, end - time.monotonic())):
                    piece: bytes = await self._body.read(_PIECE_BYTES)
                if piece:
                    return piece
                cause: Exception = EOFError("the answer is shorter than announced")
            except library_errors() as exc:
                cause = exc
            if time.monotonic() >= end:
                raise storage_error(failure_of(cause), "get", self._key, self._client.location.bucket) from cause
            await self._resume()

    async def _resume(self) -> None:
        self.close()
        # Without a pause a server that breaks off at once would be asked in a circle.
        await asyncio.sleep(self._seconds / 50)
        arguments: dict[str, Any] = {"Range": f"bytes={self._offset}-"} if self._offset else {}
        answer = await self._client.call("GetObject", "get", self._key, Key=self._name, IfMatch=self._etag, **arguments)
        self._body = answer["Body"]
        expected = f"bytes {self._offset}-" if self._offset else ""
        if answer.get("ETag") != self._etag or not str(answer.get("ContentRange", "")).startswith(expected):
            raise ObjectChangedError("get", self._key)


async def described(client: S3Client, key: str, answer: Any) -> StoredObject:
    """Return what the *answer* of S3 to a HEAD or GET tells of the object *key*."""
    metadata = answer.get("Metadata", {})
    digest, upload = sha256_of(metadata), upload_of(metadata)
    if not digest and upload:
        digest = await Notes(client).read(key, upload)
    content_type = str(answer.get("ContentType") or DEFAULT_CONTENT_TYPE)
    if "ContentLength" not in answer:
        raise StorageError("stat", key, "the store does not tell how long the object is")
    return StoredObject(key, int(answer["ContentLength"]), content_type, digest)

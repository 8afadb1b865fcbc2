"""Objects in a bucket of Amazon S3, or of a server that speaks its protocol (``STORAGE_URL=s3://bucket/prefix``)."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterable, Sequence
from contextlib import aclosing
from math import ceil
from typing import Any, TypeVar

from starlette.types import ASGIApp

from .backend import Source
from .errors import ObjectKeyError, ObjectNotFoundError, ObjectTooLargeError
from .objects import StoredObject, check_key
from .s3_client import S3Client
from .s3_digests import Notes, upload_of
from .s3_downloads import Download, described
from .s3_library import check_library
from .s3_location import S3Location
from .s3_parts import parts_of
from .s3_uploads import Upload
from .shielding import stopped
from .threads import Threads

T = TypeVar("T")

_THREADS = 4
_AT_ONCE = 16
"""How many objects of a list are looked at at a time: S3's lists have neither types nor checksums."""


class S3Store:
    """
    Keep objects in the bucket of *location*, which must be there.

    Nothing is connected, nor the library imported, before the first operation.  Objects that somebody else has put
    into the bucket have no known SHA-256 and are read unchecked.
    """

    def __init__(self, location: S3Location) -> None:
        self._location = location
        self._client = S3Client(location)
        self._threads = Threads(_THREADS, "storage")
        self.asgi_app: ASGIApp | None = None

    @classmethod
    def from_url(cls, url: str) -> "S3Store":
        """
        Read the bucket, and how to reach it, from ``s3://bucket/prefix?endpoint=…``.

        Raises:
            SettingError: A part of *url* cannot be used.
            SecretMissingError: A secret that it names is missing.
            MissingExtraError: ``faasbase[s3]`` is not installed.
        """
        check_library()
        return cls(S3Location.from_url(url))

    def warm_up(self) -> None:
        self._client.warm_up()

    async def write(self, key: str, source: Source, content_type: str, sha256: str | None) -> StoredObject:
        upload = Upload(self._client, self._threads, key, content_type, sha256)
        async with aclosing(parts_of(source, self._threads)) as parts:
            return await upload.send(parts)

    async def stat(self, key: str) -> StoredObject | None:
        try:
            answer = await self._client.call("HeadObject", "stat", key, Key=self._location.prefix + key)
        except ObjectNotFoundError:
            return None
        return await described(self._client, key, answer)

    async def read(self, key: str, max_bytes: int) -> bytes:
        download = Download(self._client, key)
        try:
            stored = await download.start()
            if stored.size_bytes > max_bytes:
                raise ObjectTooLargeError(key, stored.size_bytes, max_bytes)
            return b"".join([piece async for piece in download.pieces()])
        finally:
            download.close()

    async def open(self, key: str) -> AsyncIterator[bytes]:
        download = Download(self._client, key)
        try:
            await download.start()
            async for piece in download.pieces():
                yield piece
        finally:
            download.close()

    async def delete(self, key: str) -> None:
        name = self._location.prefix + key
        try:
            answer = await self._client.call("HeadObject", "delete", key, Key=name)
        except ObjectNotFoundError:
            return
        await self._client.call("DeleteObject", "delete", key, Key=name)
        if upload := upload_of(answer.get("Metadata", {})):
            await Notes(self._client).remove(key, upload)

    async def list(self, prefix: str) -> AsyncIterator[StoredObject]:
        waiting: list[str] = []
        async for key in self.list_keys(prefix):
            waiting.append(key)
            if len(waiting) == _AT_ONCE:
                for stored in await self._stats(waiting):
                    yield stored
                waiting.clear()
        for stored in await self._stats(waiting):
            yield stored

    async def list_keys(self, prefix: str) -> AsyncIterator[str]:
        page: dict[str, Any] = {}
        while True:
            answer = await self._client.call(
                "ListObjectsV2", "list", prefix, Prefix=self._location.prefix + prefix, **page
            )
            for found in answer.get("Contents", ()):
                key = str(found["Key"]).removeprefix(self._location.prefix)
                if _is_key(key):
                    yield key
            if not answer.get("NextContinuationToken"):
                return
            page = {"ContinuationToken": answer["NextContinuationToken"]}

    async def url(self, key: str, expires_seconds: float) -> str:
        return await self._client.presigned(
            "GetObject", "sign", key, ceil(expires_seconds), Key=self._location.prefix + key
        )

    async def upload_url(self, key: str, content_type: str, size_bytes: int | None, expires_seconds: float) -> str:
        name, size = self._location.prefix + key, {} if size_bytes is None else {"ContentLength": size_bytes}
        return await self._client.presigned(
            "PutObject", "sign", key, ceil(expires_seconds), Key=name, ContentType=content_type, **size
        )

    async def close(self) -> None:
        await self._client.close()
        self._threads.close()

    async def _stats(self, keys: Sequence[str]) -> Sequence[StoredObject]:
        found = await _all(self.stat(key) for key in keys)
        # One that was deleted meanwhile is not an object any more.
        return [stored for stored in found if stored is not None]


async def _all(works: Iterable[Awaitable[T]]) -> Sequence[T]:
    """Return the results of *works* in their order; where one fails, or the caller goes, the others end as well."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await stopped(*tasks)


def _is_key(name: str) -> bool:
    """Tell whether *name* is that of an object, and neither a note of ours nor a folder of somebody's."""
    try:
        return bool(check_key(name))
    except ObjectKeyError:
        return False

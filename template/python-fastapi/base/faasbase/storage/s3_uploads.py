"""One object on its way to S3, whole or not at all: in one request, or in parts that are given up together."""

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress
from hashlib import sha256 as new_sha256
from typing import Any
from zlib import crc32

from .errors import ChecksumError, ObjectNotFoundError, StorageError
from .objects import StoredObject
from .s3_client import S3Client
from .s3_digests import Notes, new_upload, upload_of
from .s3_parts import PART_BYTES
from .shielding import finished, stopped
from .threads import Threads

_IN_FLIGHT = 2
"""Parts on the wire, while another one is being gathered."""
_MAX_PARTS = 10_000
_GIVE_UP_SECONDS = 5.0
"""How long a caller who is cancelled may be kept for what is to be taken back."""
# Below this, hashing takes less time than the way to a thread and back.
_HASH_ON_LOOP_BYTES = 64 * 1024


class Upload:
    """Sends the object *key*; where *sha256* is given, bytes that have another are refused."""

    def __init__(self, client: S3Client, threads: Threads, key: str, content_type: str, sha256: str | None) -> None:
        self._client, self._threads = client, threads
        self._key, self._content_type, self._sha256 = key, content_type, sha256
        self._name = client.location.prefix + key
        self._own_id = new_upload()
        self._upload_id: str | None = None
        self._noted = False
        self._digest, self._size_bytes = new_sha256(), 0
        self._sending: set[asyncio.Task[None]] = set()
        self._sent: dict[int, dict[str, Any]] = {}

    async def send(self, parts: AsyncIterator[bytes]) -> StoredObject:
        """Send *parts*; the small object goes in one request."""
        first = await anext(parts)
        second = await anext(parts, None)
        if second is None:
            return await self._send_whole(first)
        replaced = await self._replaced()
        try:
            await finished(self._create())
            await self._send_part(1, first)
            await self._send_part(2, second)
            number = 2
            del first, second
            async for part in parts:
                number += 1
                await self._send_part(number, part)
            stored = await self._complete()
        except BaseException:
            await finished(self._give_up())
            raise
        if replaced:
            await Notes(self._client).remove(self._key, replaced)
        return stored

    async def _send_whole(self, data: bytes) -> StoredObject:
        await self._add(data)
        stored = self._stored()
        checksums = {"ChecksumSHA256": _base64(self._digest.digest())} if self._client.location.checksums else {}
        about = {"ContentType": self._content_type, "Metadata": {"sha256": stored.sha256}}
        await self._call("PutObject", body=data, **about, **checksums)
        return stored

    async def _create(self) -> None:
        # A caller who goes while this is under way would leave an upload that nobody knows the id of.
        checksums = {"ChecksumAlgorithm": "CRC32"} if self._client.location.checksums else {}
        metadata = {"upload": self._own_id, **({"sha256": self._sha256} if self._sha256 else {})}
        about = {"ContentType": self._content_type, "Metadata": metadata}
        answer = await self._call("CreateMultipartUpload", **about, **checksums)
        self._upload_id = answer["UploadId"]

    async def _send_part(self, number: int, part: bytes) -> None:
        if number > _MAX_PARTS:
            raise StorageError("put", self._key, f"an object may have at most {_MAX_PARTS * PART_BYTES} bytes")
        while len(self._sending) >= _IN_FLIGHT:
            done, self._sending = await asyncio.wait(self._sending, return_when=asyncio.FIRST_COMPLETED)
            _raise_first(done)
        checksum = await self._add(part)
        self._sending.add(asyncio.create_task(self._transmit(number, part, checksum), name=f"s3 part {number}"))

    async def _transmit(self, number: int, part: bytes, checksum: str) -> None:
        checksums = {"ChecksumCRC32": checksum} if self._client.location.checksums else {}
        answer = await self._call("UploadPart", PartNumber=number, UploadId=self._upload_id, body=part, **checksums)
        self._sent[number] = {"PartNumber": number, "ETag": answer["ETag"], **checksums}

    async def _complete(self) -> StoredObject:
        if self._sending:
            await asyncio.wait(self._sending, return_when=asyncio.FIRST_EXCEPTION)
        _raise_first(task for task in self._sending if task.done())
        stored = self._stored()
        if self._sha256 is None:
            self._noted = True
            await Notes(self._client).write(self._key, self._own_id, stored.sha256)
        # From here on the object may be there; whether it is must be known.
        await finished(self._finish())
        return stored

    async def _finish(self) -> None:
        parts = [self._sent[number] for number in sorted(self._sent)]
        try:
            await self._call("CompleteMultipartUpload", UploadId=self._upload_id, MultipartUpload={"Parts": parts})
        except ObjectNotFoundError:
            # The answer to the first try was lost, and S3 has forgotten the upload since.
            if not await self._is_there():
                raise
        self._upload_id, self._noted = None, False

    async def _is_there(self) -> bool:
        answer = await self._call("HeadObject")
        return bool(answer.get("Metadata", {}).get("upload") == self._own_id)

    async def _give_up(self) -> None:
        await stopped(*self._sending)
        # Where this fails, or takes too long, the bucket's lifecycle rule is what removes the parts.
        with suppress(StorageError, TimeoutError):
            async with asyncio.timeout(_GIVE_UP_SECONDS):
                if self._upload_id is not None:
                    await self._call("AbortMultipartUpload", UploadId=self._upload_id)
                if self._noted:
                    await Notes(self._client).remove(self._key, self._own_id)

    async def _replaced(self) -> str:
        """Return the upload whose note will be of no use when this one has taken its place."""
        with suppress(ObjectNotFoundError):
            return upload_of((await self._call("HeadObject")).get("Metadata", {}))
        return ""

    async def _call(self, method: str, **arguments: Any) -> Any:
        return await self._client.call(method, "put", self._key, Key=self._name, **arguments)

    async def _add(self, data: bytes) -> str:
        """Take *data* into the SHA-256 and return its own checksum for S3."""
        self._size_bytes += len(data)
        if len(data) <= _HASH_ON_LOOP_BYTES:
            return self._hashed(data)
        return await self._threads.run(lambda: self._hashed(data))

    def _hashed(self, data: bytes) -> str:
        self._digest.update(data)
        return _base64(crc32(data).to_bytes(4, "big"))

    def _stored(self) -> StoredObject:
        digest = self._digest.hexdigest()
        if self._sha256 not in (None, digest):
            raise ChecksumError("put", self._key)
        return StoredObject(self._key, self._size_bytes, self._content_type, digest)


def _raise_first(tasks: Iterable["asyncio.Task[None]"]) -> None:
    """Raise what one of *tasks* failed with, and take note of them all."""
    failures = [failure for task in tasks if (failure := task.exception())]
    if failures:
        raise failures[0]


def _base64(data: bytes) -> str:
    return b64encode(data).decode()

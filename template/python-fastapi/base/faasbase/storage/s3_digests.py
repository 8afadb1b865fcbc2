"""
The SHA-256 of objects in S3.

It stands in the object's metadata.  Only a stream in several parts is named there before its bytes are known: it gets
the id of its upload, and an empty object of that name has the SHA-256 in its metadata.  That one is written before the
upload is completed, so that whoever sees the new object finds its checksum too.
"""

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from uuid import uuid4

from .errors import ObjectNotFoundError
from .s3_client import S3Client

_SHA256 = re.compile(r"[0-9a-f]{64}")
_UPLOAD = re.compile(r"[0-9a-f]{32}")


def new_upload() -> str:
    """Return an id for an upload, which no other process chooses."""
    return uuid4().hex


def sha256_of(metadata: Mapping[str, Any]) -> str:
    """Return the SHA-256 that *metadata* holds, or nothing."""
    digest = str(metadata.get("sha256", ""))
    return digest if _SHA256.fullmatch(digest) else ""


def upload_of(metadata: Mapping[str, Any]) -> str:
    """Return the id of the upload whose note holds the SHA-256; nothing where there is no note."""
    upload = str(metadata.get("upload", ""))
    return upload if _UPLOAD.fullmatch(upload) and not sha256_of(metadata) else ""


class Notes:
    """The empty objects whose metadata holds the checksums of streams."""

    def __init__(self, client: S3Client) -> None:
        self._client = client

    async def write(self, key: str, upload: str, digest: str) -> None:
        """Note that the bytes of *upload* have the SHA-256 *digest*."""
        name = self._name(key, upload)
        await self._client.call("PutObject", "put", key, Key=name, body=b"", Metadata={"sha256": digest})

    async def read(self, key: str, upload: str) -> str:
        """Return the SHA-256 of *upload*; nothing if the object was replaced meanwhile."""
        try:
            answer = await self._client.call("HeadObject", "stat", key, Key=self._name(key, upload))
        except ObjectNotFoundError:
            return ""
        return sha256_of(answer.get("Metadata", {}))

    async def remove(self, key: str, upload: str) -> None:
        """Forget *upload*, whose object is gone."""
        await self._client.call("DeleteObject", "delete", key, Key=self._name(key, upload))

    def _name(self, key: str, upload: str) -> str:
        # Of the same length for every key: S3's names are limited, and `a` must not be a folder of `a/b`'s notes.
        return f"{self._client.location.prefix}.meta/{sha256(key.encode()).hexdigest()}/{upload}"

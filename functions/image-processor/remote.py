"""Fetch images that callers name by URL, and keep them as long as their servers say that they are the same."""

import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256

from pydantic import BaseModel, Field, ValidationError

from faasbase import Cache, FieldError, Problem, Store
from faasbase.fetching import Answer, BadUrlError, Validators, freshness_of, stream
from faasbase.storage import StorageError

from .limits import Limits
from .pool import Pool
from .uploads import Upload

log = logging.getLogger(__name__)

_RULES = ("age", "cache-control", "date", "expires", "etag", "last-modified", "vary")
"""Headers that say how long an answer may be used, and how to ask whether it is still the same."""
_ACCEPT = {"Accept": "image/*"}


class Kept(BaseModel):
    """What is known of an image that was fetched."""

    url: str = Field(repr=False)
    """Where it was at last, after redirects; signatures and tokens stand in it."""
    headers: dict[str, str]
    fresh_until: float
    """On the clock of `time.time`, which the replicas share."""
    sha256: str
    size_bytes: int
    key: str = ""
    """Of the object in the store that has its bytes; empty as long as there is none."""

    @property
    def known(self) -> Validators | None:
        etag, modified = self.headers.get("etag"), self.headers.get("last-modified")
        return Validators(self.url, etag, modified) if etag or modified else None

    @property
    def fresh(self) -> bool:
        return time.time() < self.fresh_until


@dataclass(frozen=True, slots=True)
class Remote:
    """What it takes to bring images here."""

    limits: Limits
    pool: Pool
    cache: Cache
    store: Store

    @asynccontextmanager
    async def fetched(self, url: str) -> AsyncIterator[Upload]:
        """
        Give the image at *url*, held as long as the block runs.

        One that is kept is used without asking for ``IMAGE_URL_TTL`` at most, and after that only if its server says
        that it is still the same.  A new one is kept when the block has done without an error, so that no stranger
        fills the store with what is no image.

        Raises:
            Problem: It cannot be fetched, is too large, or there is no room for it.
        """
        upload = Upload(self.pool, self.limits.max_upload_bytes)
        with upload.held():
            kept = await self._found(url)
            if kept is None or not kept.fresh:
                kept = await self._asked(url, kept, upload)
            if kept.key:
                upload.promise(kept.sha256, lambda: self._fill(url, kept, upload))
            yield upload
            if not kept.key:
                await self._keep(url, kept, upload)

    async def _asked(self, url: str, kept: Kept | None, upload: Upload) -> Kept:
        """Return *kept* where its server says that it is still the same; else put what there is now into *upload*."""
        async with _answer_of(url, upload, kept.known if kept else None) as answer:
            if kept is None or not (answer.not_modified and answer.url == kept.url):
                await _receive(answer, upload)
                return self._kept(answer, answer.headers, upload.sha256, upload.content.tell())
            headers = {**kept.headers, **answer.headers}
            renewed = self._kept(answer, headers, kept.sha256, kept.size_bytes, kept.key)
        await self._remember(url, renewed)
        return renewed

    def _kept(self, answer: Answer, headers: Mapping[str, str], digest: str, size_bytes: int, key: str = "") -> Kept:
        asked_for = freshness_of(headers).seconds
        usual = self.limits.url_seconds
        return Kept(
            url=answer.url,
            headers={name: headers[name] for name in _RULES if name in headers},
            fresh_until=time.time() + (usual if asked_for is None else min(usual, asked_for)),
            sha256=digest,
            size_bytes=size_bytes,
            key=key,
        )

    async def _found(self, url: str) -> Kept | None:
        found = await self.cache.get(_cache_key(url))
        try:
            return None if found is None else Kept.model_validate_json(found)
        except ValidationError:
            # Another version of the function wrote it.
            return None

    async def _keep(self, url: str, kept: Kept, upload: Upload) -> None:
        if not freshness_of(kept.headers).storable or not (kept.known or kept.fresh):
            await self.cache.delete(_cache_key(url))
            return
        # Not by content alone, as results are: one that is fetched back must not change its own content type.
        key = f"sources/{kept.sha256}"
        try:
            if await self.store.stat(key) is None:
                await self.store.put(upload.content.getvalue(), key=key)
        except StorageError as exc:
            # The result is there; only the next call has to fetch again.
            log.warning("an image that was fetched cannot be kept: %s", exc.reason)
            return
        await self._remember(url, kept.model_copy(update={"key": key}))

    async def _remember(self, url: str, kept: Kept) -> None:
        """Keep *kept* as long as it can be asked for again, or as it may be used without asking."""
        seconds = self.limits.cache_seconds if kept.known else kept.fresh_until - time.time()
        if freshness_of(kept.headers).storable and seconds > 0:
            await self.cache.set(_cache_key(url), kept.model_dump_json().encode(), seconds)
        else:
            await self.cache.delete(_cache_key(url))

    async def _fill(self, url: str, kept: Kept, upload: Upload) -> None:
        """Put the bytes of *kept* into *upload*, from its server where somebody has tidied the store up."""
        upload.expect(kept.size_bytes)
        try:
            upload.write(await self.store.get(kept.key, max_bytes=self.limits.max_upload_bytes))
            return
        except StorageError as exc:
            log.info("an image that was kept is fetched again: %s", exc.reason)
        await self.cache.delete(_cache_key(url))
        async with _answer_of(url, upload, None) as answer:
            await _receive(answer, upload)
        if upload.received_sha256 != kept.sha256:
            raise Problem(503, "the image at image_url has just changed", retry_after_seconds=1)


@asynccontextmanager
async def _answer_of(url: str, upload: Upload, known: Validators | None) -> AsyncIterator[Answer]:
    try:
        async with stream(url, headers=_ACCEPT, max_bytes=upload.max_bytes, known=known) as answer:
            yield answer
    except BadUrlError as exc:
        raise Problem(422, exc.detail, errors=[FieldError("image_url", exc.reason)]) from exc


async def _receive(answer: Answer, upload: Upload) -> None:
    answer.expect_success()
    upload.expect(answer.content_length or 0)
    async for chunk in answer.chunks:
        upload.write(chunk)


def _cache_key(url: str) -> str:
    # Not the URL itself: signatures and tokens stand in it.
    return f"image-url:v1:{sha256(url.encode('utf-8', 'replace')).hexdigest()}"

"""One call from upload to answer: the cache asked, the image made and stored, its address signed anew."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256

from pydantic import BaseModel, Field

from faasbase import Cache, Store, histogram, span

from .grammar import Format, Wanted
from .images import Encoded, Plan, plan, process
from .limits import Limits
from .pool import Pool
from .sources import look_at
from .uploads import Upload


class Stored(BaseModel):
    """A result as the cache keeps it: where it is, not how to get there, since addresses expire."""

    key: str
    width: int
    height: int
    format: Format
    bytes: int


class Processed(BaseModel):
    """The answer to a call."""

    processed_url: str = Field(description="Where the result can be fetched for an hour.")
    processing_time_ms: float = Field(description="From the last byte of the upload to this answer.")
    operations_count: int
    width: int
    height: int
    format: Format
    bytes: int
    cached: bool = Field(description="Whether the result was there already.")


@dataclass(frozen=True, slots=True)
class Processor:
    """What a call needs to be answered."""

    limits: Limits
    pool: Pool
    cache: Cache
    store: Store

    async def answer(self, upload: Upload, wanted: Wanted) -> Processed:
        """Return where the result of *wanted* is; raises `Problem` where there cannot be one."""
        started = time.perf_counter()
        stored, cached = await self._found_or_made(upload, wanted)
        if cached and await self.store.stat(stored.key) is None:
            # Somebody has tidied the store up; the cache cannot know.
            await self.cache.delete(_cache_key(upload, wanted))
            stored, cached = await self._found_or_made(upload, wanted)
        url = await self.store.url(stored.key)
        return Processed(
            processed_url=url,
            processing_time_ms=round((time.perf_counter() - started) * 1000, 2),
            operations_count=wanted.operations_count,
            cached=cached,
            **stored.model_dump(exclude={"key"}),
        )

    async def _found_or_made(self, upload: Upload, wanted: Wanted) -> tuple[Stored, bool]:
        cached = True

        async def make() -> Stored:
            nonlocal cached
            cached = False
            return await self._make(upload, wanted)

        key, seconds = _cache_key(upload, wanted), self.limits.cache_seconds
        stored = await self.cache.get_or_load(key, make, ttl_seconds=seconds, returns=Stored)
        return stored, cached

    async def _make(self, upload: Upload, wanted: Wanted) -> Stored:
        max_pixels = self.limits.max_pixels
        # Its own caller may leave while others wait for the same result.
        with upload.held():
            await upload.filled()
            source = await self.pool.look(lambda: look_at(upload.content, max_pixels))
            steps = plan(source, wanted, max_pixels)
            with ExitStack() as watched:
                watched.enter_context(_watched(steps))

                async def finish(made: Encoded) -> Stored:
                    watched.close()
                    return await self._stored(made)

                return await self.pool.run(
                    steps.memory_pixels, lambda stop: process(upload.content, steps, max_pixels, stop), finish
                )

    async def _stored(self, made: Encoded) -> Stored:
        stored = await self.store.put(made.data, content_type=f"image/{made.format}")
        return Stored(key=stored.key, width=made.width, height=made.height, format=made.format, bytes=stored.size_bytes)


def _cache_key(upload: Upload, wanted: Wanted) -> str:
    steps = sha256("\n".join(wanted.canonical).encode()).hexdigest()
    return f"image:v1:{upload.sha256}:{steps}"


@contextmanager
def _watched(steps: Plan) -> Iterator[None]:
    """Trace and time the body; the time includes the wait for a turn, which is what a caller feels."""
    started = time.perf_counter()
    attributes: dict[str, str | int | list[str]] = {
        "image.source.format": steps.source.format,
        "image.source.width": steps.source.size[0],
        "image.source.height": steps.source.size[1],
        "image.format": steps.format,
        "image.operations": [operation.canonical for operation, _ in steps.steps],
    }
    with span("image.process", **attributes):
        yield
    seconds = histogram("image_processing_seconds", "Time from decoding to encoding, waiting included.", ("format",))
    seconds.observe(time.perf_counter() - started, format=steps.format)

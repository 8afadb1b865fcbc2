"""What is to be sent to S3, in parts of equal size: only one of them is in memory before it is wanted."""

from collections.abc import AsyncGenerator, AsyncIterable
from io import BufferedReader
from pathlib import Path

from .backend import Source
from .threads import Threads

PART_BYTES = 8 * 1024 * 1024
"""S3 takes at least 5 MiB, and at most 10,000 parts; some servers want all of the same size."""


def parts_of(source: Source, threads: Threads) -> AsyncGenerator[bytes, None]:
    """Yield the bytes of *source* in parts, all full but the last; at least one, which may be empty."""
    if isinstance(source, bytes):
        return _of_bytes(source)
    return _of_file(source, threads) if isinstance(source, Path) else _of_stream(source)


async def _of_bytes(data: bytes) -> AsyncGenerator[bytes, None]:
    if len(data) <= PART_BYTES:
        # A slice would copy it.
        yield data
        return
    for begin in range(0, len(data), PART_BYTES):
        yield data[begin : begin + PART_BYTES]


async def _of_file(path: Path, threads: Threads) -> AsyncGenerator[bytes, None]:
    file: BufferedReader = await threads.run(lambda: path.open("rb"))
    try:
        part = await threads.run(lambda: file.read(PART_BYTES))
        yield part
        while len(part) == PART_BYTES and (part := await threads.run(lambda: file.read(PART_BYTES))):
            yield part
    finally:
        file.close()


async def _of_stream(chunks: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    waiting, full = bytearray(), False
    async for chunk in chunks:
        waiting += chunk
        while len(waiting) >= PART_BYTES:
            yield bytes(memoryview(waiting)[:PART_BYTES])
            del waiting[:PART_BYTES]
            full = True
    if waiting or not full:
        yield bytes(waiting)

"""Take an upload into memory, and not a byte more than is allowed."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from hashlib import sha256
from io import BytesIO

from fastapi import Request

from faasbase import Problem

from .pool import Pool


class Upload:
    """A request's body, in memory until the last one who holds it lets go; its bytes count in *pool*."""

    def __init__(self, pool: Pool, max_bytes: int) -> None:
        self.content = BytesIO()
        self._pool, self._max_bytes = pool, max_bytes
        self._digest = sha256()
        self._counted = self._holders = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the body while the block runs, whoever else lets go meanwhile."""
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1
            if self._holders == 0:
                # Not left to the garbage collector: an error's traceback refers to the body until it comes by.
                self.content.close()
                self._pool.uncount(self._counted)

    def expect(self, size_bytes: int) -> None:
        """Count *size_bytes* before they arrive; raises `Problem`: 413 beyond the limit, 429 if there is no room."""
        if size_bytes > self._max_bytes:
            raise Problem(413, f"the body has more than {self._max_bytes / 1024 / 1024:g} MiB")
        if size_bytes > self._counted:
            self._pool.count(size_bytes - self._counted)
            self._counted = size_bytes

    def write(self, chunk: bytes) -> None:
        """Append *chunk*; raises as `expect` does."""
        self.expect(self.content.tell() + len(chunk))
        self.content.write(chunk)
        self._digest.update(chunk)


@asynccontextmanager
async def received(request: Request, pool: Pool, max_bytes: int) -> AsyncIterator[Upload]:
    """
    Give the body of *request*, held as long as the block runs.

    Raises:
        Problem: 413 as soon as it is known to have more than *max_bytes*; 429 if others' bodies leave no room for it.
    """
    upload = Upload(pool, max_bytes)
    with upload.held():
        announced = request.headers.get("content-length", "")
        upload.expect(int(announced) if announced.isdecimal() else 0)
        async for chunk in request.stream():
            upload.write(chunk)
        yield upload

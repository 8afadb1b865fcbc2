"""Take an image into memory, and not a byte more than is allowed."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from io import BytesIO

from faasbase import Problem

from .pool import Pool


class Upload:
    """
    An image, in memory until the last one who holds it lets go; its bytes count in *pool*.

    It may also be promised: known by its digest, and in memory only once somebody asks for its bytes.
    """

    def __init__(self, pool: Pool, max_bytes: int) -> None:
        self.content = BytesIO()
        self.max_bytes = max_bytes
        self._pool = pool
        self._digest = sha256()
        self._counted = self._holders = 0
        self._promised: str | None = None
        self._fill: Callable[[], Awaitable[None]] | None = None

    @property
    def sha256(self) -> str:
        """Of the whole image, whether it is here yet or not."""
        return self._promised or self.received_sha256

    @property
    def received_sha256(self) -> str:
        return self._digest.hexdigest()

    def promise(self, sha256: str, fill: Callable[[], Awaitable[None]]) -> None:
        """Say what the image is, and how it comes here when it is needed."""
        self._promised, self._fill = sha256, fill

    async def filled(self) -> None:
        """Have the bytes here; raises what brings them."""
        fill, self._fill = self._fill, None
        if fill is not None:
            await fill()

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
        if size_bytes > self.max_bytes:
            raise Problem(413, f"the image has more than {self.max_bytes / 1024 / 1024:g} MiB")
        if size_bytes > self._counted:
            self._pool.count(size_bytes - self._counted)
            self._counted = size_bytes

    def write(self, chunk: bytes) -> None:
        """Append *chunk*; raises as `expect` does."""
        self.expect(self.content.tell() + len(chunk))
        self.content.write(chunk)
        self._digest.update(chunk)

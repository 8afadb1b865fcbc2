"""Take an upload into memory, and not a byte more than is allowed."""

import asyncio
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO

from fastapi import Request

from faasbase import Problem


@dataclass(frozen=True, slots=True)
class Upload:
    """A request's body."""

    content: BytesIO
    sha256: str


async def read_upload(request: Request, max_bytes: int) -> Upload:
    """
    Return the body of *request*.

    Raises:
        Problem: 413 as soon as it is known to have more than *max_bytes*.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > max_bytes:
        raise _too_large(max_bytes)
    content = BytesIO()
    async for chunk in request.stream():
        if content.tell() + len(chunk) > max_bytes:
            raise _too_large(max_bytes)
        content.write(chunk)
    digest = await asyncio.to_thread(sha256, content.getbuffer())
    return Upload(content, digest.hexdigest())


def _too_large(max_bytes: int) -> Problem:
    return Problem(413, f"the body has more than {max_bytes / 1024 / 1024:g} MiB")

"""Read what a call asks for: its body is an image, or a JSON document that says where one is."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from faasbase import Problem

from .grammar import MAX_OPERATIONS, Format, Wanted, read_wanted
from .remote import Remote
from .uploads import Upload

_MAX_DOCUMENT_BYTES = 64 * 1024


class FromUrl(BaseModel):
    """An image that is fetched from elsewhere, and what to do with it."""

    model_config = ConfigDict(extra="forbid")

    image_url: str = Field(description="Where the image is; public addresses over http and https only.")
    operations: list[str] = Field(
        default=[], max_length=MAX_OPERATIONS, description="As `op` in the query.", examples=[["resize:800x600"]]
    )
    format: Format | Literal["jpg"] | None = None
    quality: int | None = Field(default=None, ge=1, le=100, description="Of JPEG, WebP and AVIF.")


BODY: dict[str, Any] = {
    "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "application/json": {"schema": FromUrl.model_json_schema()},
    },
    "required": True,
}


@asynccontextmanager
async def asked(request: Request, wanted: Wanted, remote: Remote) -> AsyncIterator[tuple[Upload, Wanted]]:
    """
    Give the image of *request* and what to do with it, *wanted* being what its query says.

    Raises:
        Problem: The image is too large, there is no room for it, or it cannot be fetched.
        RequestValidationError: The document is not as `FromUrl` says.
    """
    upload = Upload(remote.pool, remote.limits.max_upload_bytes)
    with upload.held():
        announced = request.headers.get("content-length", "")
        upload.expect(int(announced) if announced.isdecimal() else 0)
        async for chunk in request.stream():
            upload.write(chunk)
            if upload.content.tell() > _MAX_DOCUMENT_BYTES and _is_document(request, upload):
                raise Problem(413, f"the document has more than {_MAX_DOCUMENT_BYTES // 1024} KiB")
        if not _is_document(request, upload):
            yield upload, wanted
            return
        document = _read(upload.content.getvalue())
    if wanted != read_wanted([], None, None):
        raise Problem(422, "with image_url, operations belong into the document and not into the query")
    wanted = read_wanted(document.operations, document.format, document.quality, "operations")
    async with remote.fetched(document.image_url) as fetched:
        yield fetched, wanted


def _is_document(request: Request, upload: Upload) -> bool:
    """Tell JSON by its type, or by its first character, since `curl -d` names another type and no image begins so."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or bytes(upload.content.getbuffer()[:64]).lstrip()[:1] == b"{"


def _read(document: bytes) -> FromUrl:
    try:
        return FromUrl.model_validate_json(document)
    except ValidationError as exc:
        # FastAPI's own, so that callers see the same problem details as for any other body.
        raise RequestValidationError([{**error, "loc": ("body", *error["loc"])} for error in exc.errors()]) from None

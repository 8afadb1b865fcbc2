"""What of a handler's arguments is the caller's payload, and how it is spelt for a fingerprint."""

from __future__ import annotations

import asyncio
import sys
from hashlib import sha256
from typing import Any

_CONTEXT = (
    ("starlette.responses", "Response"),
    ("starlette.background", "BackgroundTask"),
    ("starlette.websockets", "WebSocket"),
    ("fastapi.security", "SecurityScopes"),
    ("faasbase.classic", "Context"),
    ("faasbase.secrets", "Secret"),
    ("faasbase.caching", "Cache"),
    ("faasbase.storage", "Store"),
)
_CHUNK_BYTES = 1024 * 1024


def is_event(value: Any) -> bool:
    """Tell whether *value* is an event of an @on_event handler."""
    return _is_a(value, "faasbase.events.envelope", "Event")


def is_caller(value: Any) -> bool:
    """Tell whether *value* is a caller whose credentials were checked."""
    return _is_a(value, "faasbase.callers", "Caller")


def is_payload(value: Any) -> bool:
    """Tell whether *value* comes from the caller, and not from what is around the call."""
    return not any(_is_a(value, module, name) for module, name in _CONTEXT)


async def canonical(arguments: dict[str, Any]) -> dict[str, Any]:
    """
    Return *arguments* with what has no spelling of its own replaced: requests, uploads, events.

    A request counts only where nothing was parsed from it, since its bytes may differ where its content does not.
    """
    requests = {name for name, value in arguments.items() if _is_a(value, "starlette.requests", "Request")}
    if len(requests) < len(arguments):
        arguments = {name: value for name, value in arguments.items() if name not in requests}
    return {name: await _spelt(value) for name, value in arguments.items()}


async def _spelt(value: Any) -> Any:
    if is_event(value):
        return [value.type, value.subject, value.data]
    if _is_a(value, "starlette.requests", "Request"):
        return [value.method, value.url.path, value.url.query, sha256(await value.body()).hexdigest()]
    if _is_a(value, "faasbase.classic", "Event"):
        return [value.method, value.path, {name: value.query.getlist(name) for name in value.query}, value.body]
    if _is_a(value, "starlette.datastructures", "UploadFile"):
        return [value.filename, value.content_type, await _digest_of(value)]
    if is_caller(value):
        # Another caller under the same key must not be shown what this one was.
        return value.secret
    if isinstance(value, (list, tuple)):
        return [await _spelt(item) for item in value]
    return value


async def _digest_of(upload: Any) -> str:
    digest = sha256()
    await upload.seek(0)
    while chunk := await upload.read(_CHUNK_BYTES):
        await asyncio.to_thread(digest.update, chunk)
    await upload.seek(0)
    return digest.hexdigest()


def _is_a(value: Any, module: str, name: str) -> bool:
    # Where the module has not been imported nothing can be of its types.
    found = sys.modules.get(module)
    kind = getattr(found, name, None) if found else None
    return isinstance(kind, type) and isinstance(value, kind)

"""Answer ``/_/objects/<key>`` to those who hold a signed address."""

import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Protocol
from urllib.parse import parse_qs

from starlette._utils import get_route_path
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..context import current_call
from ..errors import PROBLEM_TYPE, Problem
from .backend import Source
from .errors import ObjectKeyError, ObjectNotFoundError
from .links import OBJECTS_PATH, Links
from .objects import StoredObject, check_key

# Objects come from strangers: a browser must neither guess their type nor run anything in them.
_SAFETY = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'",
}


class ServedStore(Protocol):
    """What is needed of a store to serve its objects."""

    async def links(self) -> Links:
        """Return what checks addresses."""

    async def write(self, key: str, source: Source, content_type: str, sha256: str | None) -> StoredObject:
        """Store an object."""

    async def stat(self, key: str) -> StoredObject | None:
        """Return what is known of an object."""

    def opened(self, key: str) -> AbstractAsyncContextManager[tuple[StoredObject, AsyncIterator[bytes]]]:
        """Give an object and its pieces."""


class ObjectsApp:
    """The ASGI app; everything without a good signature is 403, so that nobody learns which keys exist."""

    def __init__(self, store: ServedStore) -> None:
        self._store = store

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            await self._answer(scope, receive, send)
        except Problem as problem:
            call = current_call()
            body = problem.body(call.call_id if call else None)
            response = Response(body, problem.status, {**problem.headers, **_SAFETY}, PROBLEM_TYPE)
            await response(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD", "PUT"):
            raise Problem(405, "objects can only be read and written", headers={"Allow": "GET, HEAD, PUT"})
        key = _key(scope)
        if scope["method"] == "PUT":
            await self._take(scope, receive, send, key)
            return
        seconds_left = await self._checked(scope, key)
        stored = await self._store.stat(key)
        if stored is None:
            raise Problem(404, "there is no such object")
        caching = {"cache-control": f"private, max-age={int(seconds_left)}"}
        if _matches(Headers(scope=scope).get("if-none-match", ""), stored.sha256):
            headers = {"etag": f'"{stored.sha256}"', **caching, **_SAFETY}
            await Response(None, 304, headers)(scope, receive, send)
        elif scope["method"] == "HEAD":
            await Response(None, 200, _headers(stored, caching))(scope, receive, send)
        else:
            await self._send(key, caching, send)

    async def _take(self, scope: Scope, receive: Receive, send: Send, key: str) -> None:
        query, headers = _query(scope), Headers(scope=scope)
        content_type, size = query.get("content_type", ""), query.get("size", "")
        await self._checked(scope, key, "PUT", content_type, size)
        # As S3 does: what was signed is what must come.
        if headers.get("content-type", "") != content_type or (size and headers.get("content-length") != size):
            raise Problem(403, "the address is for an object of another type or size")
        try:
            stored = await self._store.write(key, Request(scope, receive).stream(), content_type, None)
        except ClientDisconnect:
            return
        except ObjectKeyError as exc:
            raise Problem(409, f"the object cannot have this key: {exc.reason}") from None
        await Response(None, 200, {"etag": f'"{stored.sha256}"', **_SAFETY})(scope, receive, send)

    async def _checked(self, scope: Scope, key: str, *method: str) -> float:
        query = _query(scope)
        expires, signature = query.get("expires", ""), query.get("signature", "")
        seconds_left = (await self._store.links()).seconds_left(key, expires, signature, *method)
        if seconds_left is None:
            raise Problem(403, "the address is not signed, or its time is over")
        return seconds_left

    async def _send(self, key: str, caching: dict[str, str], send: Send) -> None:
        try:
            async with self._store.opened(key) as (stored, pieces):
                # It may be another version than the one that was looked at.
                start = Response(None, 200, _headers(stored, caching))
                await send({"type": "http.response.start", "status": 200, "headers": start.raw_headers})
                async for piece in pieces:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
        except ObjectNotFoundError:
            raise Problem(404, "there is no such object") from None
        await send({"type": "http.response.body", "body": b""})


def _headers(stored: StoredObject, caching: dict[str, str]) -> dict[str, str]:
    described = {"content-type": stored.content_type, "content-length": str(stored.size_bytes)}
    return {**described, "etag": f'"{stored.sha256}"', **caching, **_SAFETY}


def _query(scope: Scope) -> dict[str, str]:
    query = parse_qs(scope["query_string"].decode("latin-1"))
    return {name: values[-1] for name, values in query.items()}


def _key(scope: Scope) -> str:
    path = get_route_path(scope)
    try:
        return check_key(path.removeprefix(OBJECTS_PATH)) if path.startswith(OBJECTS_PATH) else ""
    except ObjectKeyError:
        # No signature can be right for it.
        return ""


def _matches(if_none_match: str, sha256: str) -> bool:
    tags = re.findall(r'"([^"]*)"|(\*)', if_none_match)
    return any(star or tag == sha256 for tag, star in tags)

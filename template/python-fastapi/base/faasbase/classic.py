"""
The official `python3-http` contract: `handle(event, context)`, so that its handlers run unchanged.

Where the official template loses data ours does not: bytes stay bytes, lists are JSON, HEAD and OPTIONS are answered.
"""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .errors import Problem
from .flask_bridge import FlaskBridge, end_to_end, response_from_flask

Handle = Callable[["Event", "Context"], Any]

_METHODS = ("GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE")
_TEXT = "text/html; charset=utf-8"


class MissingQueryParameterError(Problem, KeyError):
    """A handler asked for a query parameter that the caller has not given: 400, as with Flask."""

    def __init__(self, name: str) -> None:
        super().__init__(400, f"the query parameter {name} is missing")


class Query(dict[str, str]):
    """Query parameters; of one given several times the first counts, and `getlist` has them all, as with Flask."""

    def __init__(self, query: str) -> None:
        self._values: dict[str, list[str]] = parse_qs(query, keep_blank_values=True)
        super().__init__({name: values[0] for name, values in self._values.items()})

    def __missing__(self, name: str) -> str:
        raise MissingQueryParameterError(name)

    def getlist(self, name: str) -> list[str]:
        """Return every value of *name*."""
        return self._values.get(name, [])

    def to_dict(self, flat: bool = True) -> dict[str, Any]:
        """Return a plain dict of the first values, or of lists of all of them."""
        return dict(self) if flat else dict(self._values)


class Event:
    """One call, under the official template's names."""

    def __init__(self, request: Request, body: bytes) -> None:
        self.body = body
        self.headers = _TitleHeaders(request.headers)
        self.method = request.method
        self.query = Query(request.scope["query_string"].decode("latin-1"))
        self.path = request.scope["path"].removeprefix(request.scope.get("root_path", "")) or "/"


class Context:
    """What the official template tells of the function."""

    def __init__(self) -> None:
        self.hostname = os.environ.get("HOSTNAME", "localhost")


class _TitleHeaders(Headers):
    """Headers whose names are written as Flask writes them (`Content-Type`); lookups ignore case as ever."""

    def __init__(self, headers: Headers) -> None:
        super().__init__(raw=headers.raw)

    def keys(self) -> list[str]:  # type: ignore[override]
        return [key.title() for key in super().keys()]  # noqa: SIM118 - of the base class

    def items(self) -> list[tuple[str, str]]:  # type: ignore[override]
        return [(key.title(), value) for key, value in super().items()]

    def __iter__(self) -> Any:
        return iter(self.keys())


class ClassicApp:
    """An ASGI app around `handle(event, context)`; a plain `def` runs in a thread."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle
        self._is_async = inspect.iscoroutinefunction(handle)
        self._context = Context()
        self._flask = FlaskBridge()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method not in _METHODS:
            raise Problem(405, f"{request.method} is not served", headers={"Allow": ", ".join(_METHODS)})
        if request.method == "OPTIONS":
            response = Response(status_code=204, headers={"Allow": ", ".join(_METHODS)})
        else:
            response = await self._respond(request)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        try:
            event = Event(request, await request.body())
        except HTTPException as exc:
            raise Problem(exc.status_code, exc.detail) from exc
        with self._flask.context(request, event.body):
            return response_of(await self._run(event))

    async def _run(self, event: Event) -> Any:
        if self._is_async:
            answer: Awaitable[Any] = self._handle(event, self._context)
            return await answer
        return await run_in_threadpool(self._handle, event, self._context)


def response_of(result: Any) -> Response:
    """
    Turn what a handler returned into a response, by the official rules.

    None is an empty 200; a dict has ``statusCode``, ``body`` and ``headers``; a tuple is Flask's (body, status,
    headers); responses of Starlette and, where it is installed, of Flask are sent as they are.
    """
    if isinstance(result, Response):
        return result
    if result is None:
        return _response("", 200, ())
    if isinstance(result, dict):
        status = result.get("statusCode", 200)
        return _response(result.get("body", ""), status, _pairs(result.get("headers") or ()))
    if isinstance(result, tuple):
        return _from_tuple(result)
    if (flask_response := response_from_flask(result)) is not None:
        return flask_response
    return _response(result, 200, ())


def _from_tuple(result: tuple[Any, ...]) -> Response:
    body, *rest = result
    status = next((part for part in rest if isinstance(part, int | str)), 200)
    headers = next((part for part in rest if isinstance(part, Mapping | list | tuple)), ())
    if (response := response_from_flask(body)) is not None:
        response.status_code = int(status)
        response.headers.update(dict(_pairs(headers)))
        return response
    return _response(body, status, _pairs(headers))


def _pairs(headers: Any) -> list[tuple[str, str]]:
    items: Iterable[Any] = headers.items() if isinstance(headers, Mapping) else headers
    return end_to_end((str(name), str(value)) for name, value in items)


def _response(body: Any, status: Any, headers: Iterable[tuple[str, str]]) -> Response:
    content, media_type = _content(body)
    response = Response(content, int(status))
    given = list(headers)
    if not any(name == "content-type" for name, _ in given):
        given.append(("content-type", media_type))
    # As a list and not a dict: a handler may set several cookies.
    for name, value in given:
        response.raw_headers.append((name.encode("latin-1"), value.encode("latin-1")))
    return response


def _content(body: Any) -> tuple[bytes, str]:
    if isinstance(body, bytes | bytearray | memoryview):
        return bytes(body), "application/octet-stream"
    if isinstance(body, dict | list):
        return json.dumps(body, default=str).encode(), "application/json"
    return str(body).encode(), _TEXT

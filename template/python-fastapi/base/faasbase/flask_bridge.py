"""
What handlers of the official template may expect of Flask, which serves them there: its request and its responses.

Used only where the handler has imported Flask itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from io import BytesIO
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

_OF_THE_CONNECTION = frozenset(
    (
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)


class FlaskBridge:
    """Gives each call Flask's request context, where there is Flask."""

    def __init__(self) -> None:
        flask = sys.modules.get("flask")
        self._app = flask.Flask("function") if flask else None

    def context(self, request: Request, body: bytes) -> AbstractContextManager[Any]:
        """Return the context that Flask's proxies work in."""
        if self._app is None:
            return nullcontext()
        context: AbstractContextManager[Any] = self._app.request_context(_wsgi_environ(request, body))
        return context


def end_to_end(headers: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return *headers*, names in lower case, without those that frame the message or speak of the connection."""
    lowered = ((name.lower(), value) for name, value in headers)
    # They are the server's matter (RFC 9110 section 7.6.1); a second length could be believed instead of the real one.
    return [(name, value) for name, value in lowered if name not in _OF_THE_CONNECTION]


def response_from_flask(result: Any) -> Response | None:
    """Return Flask's response *result* as one of Starlette; None where it is something else."""
    werkzeug = sys.modules.get("werkzeug.wrappers")
    if werkzeug is None or not isinstance(result, werkzeug.Response):
        return None
    response: _Closing
    if result.is_streamed:
        response = _ClosingStream(result.iter_encoded(), result.status_code)
    else:
        response = _Closing(result.get_data(), result.status_code)
    response.result = result
    own = [(name, value) for name, value in response.raw_headers if name == b"content-length"]
    given = end_to_end(result.headers.items())
    response.raw_headers = [*own, *((name.encode("latin-1"), value.encode("latin-1")) for name, value in given)]
    return response


class _Closing(Response):
    """Closes Flask's response once it is sent, or cannot be: `call_on_close` waits for that."""

    result: Any

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await run_in_threadpool(self._close)

    def _close(self) -> None:
        pieces = self.result.response
        if self.result.is_streamed and hasattr(pieces, "close"):
            # A generator that is cut off within a step cannot be closed yet; it ends by itself after that step.
            with suppress(ValueError):
                pieces.close()
            self.result.response = ()
        self.result.close()


class _ClosingStream(_Closing, StreamingResponse):
    """The same for a response in pieces."""


def _wsgi_environ(request: Request, body: bytes) -> dict[str, Any]:
    """Describe the call as PEP 3333 has it."""
    scope = request.scope
    root_path = scope.get("root_path", "")
    host, port = scope.get("server") or ("localhost", None)
    return {
        **_wsgi_headers(request),
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": _wsgi_text(root_path),
        "PATH_INFO": _wsgi_text(scope["path"].removeprefix(root_path) or "/"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port or 80),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }


def _wsgi_headers(request: Request) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        # With an underscore it would pass for the header that is spelt with a hyphen.
        if "_" not in name:
            key = name.upper().replace("-", "_")
            key = key if key == "CONTENT_TYPE" else f"HTTP_{key}"
            headers[key] = f"{headers[key]},{value}" if key in headers else value
    # Its name in WSGI is CONTENT_LENGTH, and that is the length of what has arrived.
    headers.pop("HTTP_CONTENT_LENGTH", None)
    return headers


def _wsgi_text(path: str) -> str:
    """Return *path* as PEP 3333 wants it: its bytes, each as a character."""
    return path.encode("utf-8", "surrogateescape").decode("latin-1")

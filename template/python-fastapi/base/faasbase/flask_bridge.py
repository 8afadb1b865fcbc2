"""
What handlers of the official template may expect of Flask, which serves them there: its request and its responses.

Used only where the handler has imported Flask itself.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from io import BytesIO
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse


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


def response_from_flask(result: Any) -> Response | None:
    """Return Flask's response *result* as one of Starlette; None where it is something else."""
    werkzeug = sys.modules.get("werkzeug.wrappers")
    if werkzeug is None or not isinstance(result, werkzeug.Response):
        return None
    response: Response
    if result.is_streamed:
        response = StreamingResponse(result.response, result.status_code)
    else:
        response = Response(result.get_data(), result.status_code)
    own = [(name, value) for name, value in response.raw_headers if name == b"content-length"]
    given = [(name.lower(), value) for name, value in result.headers.items() if name.lower() != "content-length"]
    response.raw_headers = [*own, *((name.encode("latin-1"), value.encode("latin-1")) for name, value in given)]
    return response


def _wsgi_environ(request: Request, body: bytes) -> dict[str, Any]:
    """Describe the call as PEP 3333 has it."""
    root_path = request.scope.get("root_path", "")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": request.method,
        "SCRIPT_NAME": root_path,
        "PATH_INFO": request.scope["path"].removeprefix(root_path) or "/",
        "QUERY_STRING": request.url.query,
        "SERVER_NAME": request.url.hostname or "localhost",
        "SERVER_PORT": str(request.url.port or 80),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": request.url.scheme,
        "wsgi.input": BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
    }
    for name, value in request.headers.items():
        key = name.upper().replace("-", "_")
        environ[key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"] = value
    return environ

"""FastAPI for the typed forms: `handle` at `/` and below, and problem details for every error, documented as such."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from .context import current_call
from .errors import PROBLEM_TYPE, FieldError, Problem
from .settings import Settings

_PROBLEM_SCHEMA = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457 problem details",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "call_id": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "message"],
                "properties": {"field": {"type": "string"}, "message": {"type": "string"}},
            },
        },
    },
}


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses=`` of FastAPI that document problem details for *statuses*."""
    content = {PROBLEM_TYPE: {"schema": _PROBLEM_SCHEMA}}
    return {status: {"description": Problem(status, "").title, "content": content} for status in statuses}


def fastapi_app(settings: Settings, lifespan: Callable[[Any], Any] | None) -> FastAPI:
    """Return an app whose errors are problem details, with its documentation behind the gateway's prefix."""
    documented: dict[int | str, dict[str, Any]] = {
        **problem_responses(422),
        "default": {
            "description": "Problem",
            "content": {PROBLEM_TYPE: {"schema": _PROBLEM_SCHEMA}},
        },
    }
    return _Documented(
        title=settings.function_name,
        lifespan=lifespan,
        openapi_url="/openapi.json" if settings.docs_enabled else None,
        responses=documented,
        exception_handlers={
            Problem: _on_problem,
            HTTPException: _on_http_exception,
            RequestValidationError: _on_invalid_request,
            Exception: _on_crash,
        },
        # tracing.instrument decides who makes spans; FastAPI's own would be a second one.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )


class _Documented(FastAPI):
    """Says more of its routes than FastAPI can know."""

    def openapi(self) -> dict[str, Any]:
        known = self.openapi_schema
        schema = super().openapi()
        # Else it was made before, and is complete.
        if schema is not known and "faasbase.idempotency" in sys.modules:
            from .idempotency.documenting import document

            document(schema, self.routes)
        return schema


def route_handle(app: FastAPI, handle: Callable[..., Any]) -> None:
    """
    Serve *handle* at ``/`` and at every path below, whatever the method.

    Documented is what callers use: POST, as OpenFaaS invokes functions, and GET where no body is expected.
    """
    app.add_middleware(_PlainJson)
    endpoint = _bytes_aware(handle)
    name = getattr(handle, "__name__", "handle")
    app.add_api_route("/", endpoint, methods=["POST"], name=name, operation_id=name)
    documented = ["POST"]
    if app.routes[-1].body_field is None:  # type: ignore[attr-defined]
        app.add_api_route("/", endpoint, methods=["GET"], name=name, operation_id=f"{name}_get")
        documented.append("GET")
    others = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"] if len(documented) > 1 else ["POST", "PUT", "PATCH"]
    app.add_api_route("/{_below:path}", endpoint, methods=others, name=name, include_in_schema=False)
    allowed = ", ".join(sorted({*others, "OPTIONS"}))
    app.add_api_route("/{_below:path}", _options(allowed), methods=["OPTIONS"], include_in_schema=False)


class _PlainJson:
    """Takes a body that says it is plain text, or nothing, for JSON: so `faas-cli invoke` and connectors send it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            types = [value for name, value in scope["headers"] if name == b"content-type"]
            if not types or types[0].split(b";")[0].strip().lower() == b"text/plain":
                others = [header for header in scope["headers"] if header[0] != b"content-type"]
                scope = {**scope, "headers": [*others, (b"content-type", b"application/json")]}
        await self._app(scope, receive, send)


def _options(allowed: str) -> Callable[[], Response]:
    async def options() -> Response:
        return Response(status_code=204, headers={"Allow": allowed})

    return options  # type: ignore[return-value]


def _bytes_aware(handle: Callable[..., Any]) -> Callable[..., Any]:
    """Send ``-> bytes`` as they are: FastAPI would try to make JSON of them."""
    if inspect.signature(handle, eval_str=True).return_annotation is not bytes:
        return handle
    if inspect.iscoroutinefunction(handle):

        @functools.wraps(handle)
        async def answer(*args: Any, **kwargs: Any) -> Response:
            return Response(await handle(*args, **kwargs), media_type="application/octet-stream")
    else:

        @functools.wraps(handle)
        def answer(*args: Any, **kwargs: Any) -> Response:
            return Response(handle(*args, **kwargs), media_type="application/octet-stream")

    answer.__signature__ = inspect.signature(handle).replace(return_annotation=Response)  # type: ignore[attr-defined]
    return answer


def _response(problem: Problem) -> Response:
    call = current_call()
    body = problem.body(call.call_id if call else None)
    return Response(body, problem.status, problem.headers, media_type=PROBLEM_TYPE)


async def _on_problem(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, Problem)  # noqa: S101 - FastAPI picks the handler by this type
    return _response(exc)


async def _on_http_exception(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)  # noqa: S101
    detail = exc.detail if isinstance(exc.detail, str) else json.dumps(exc.detail, default=str)
    return _response(Problem(exc.status_code, detail, headers=exc.headers))


async def _on_invalid_request(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)  # noqa: S101
    detail = "the request is not valid"
    if any(error["loc"] == ("body",) for error in exc.errors()) and not _is_json(request):
        detail += "; a JSON body needs Content-Type: application/json"
    return _response(Problem(422, detail, errors=_field_errors(exc.errors())))


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


async def _on_crash(request: Request, exc: Exception) -> Response:
    # Starlette raises the exception again after this answer, and the watchdog logs it.
    return _response(Problem(500, "the function failed; see its log for this call"))


def _field_errors(errors: Sequence[Any]) -> list[FieldError]:
    """Name each field and what is wrong with it, and leave out its value, which may be a secret."""
    return [_field_error(error) for error in errors]


def _field_error(error: Any) -> FieldError:
    if error["type"] == "json_invalid":
        return FieldError("body", f"is no JSON: {error['ctx']['error']} at character {error['loc'][-1]}")
    return FieldError(".".join(map(str, error["loc"])), error["msg"])

"""
Events pushed over HTTP, in CloudEvents' binary or structured mode.

What the handler says becomes a status: settled 204; again later 503 with ``Retry-After``; never 4xx, which OpenFaaS'
queue workers do not retry.
"""

from __future__ import annotations

import hmac
import inspect
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .. import metrics
from ..errors import FieldError, Problem, Reject, Retry, SettingError
from ..settings import Settings
from ..tracing import span
from . import Event, EventHandler

logger = logging.getLogger(__name__)

OUTCOMES = metrics.counter("faas_events", "Events by what became of them.", ("type", "outcome"))

_STRUCTURED = "application/cloudevents+json"
_ATTRIBUTES = frozenset(("id", "source", "type", "specversion", "subject", "time", "datacontenttype", "dataschema"))
_RETRY_AFTER_SECONDS = 5.0
_MAX_SECRET_BYTES = 4096


def is_event(scope: Scope) -> bool:
    """Tell a pushed event from a call of the HTTP surface: by its content type, or CloudEvents' headers."""
    for name, value in scope["headers"]:
        if name == b"ce-specversion" or (name == b"content-type" and value.startswith(b"application/cloudevents")):
            return True
    return False


def guard(settings: Settings) -> Callable[[Request], None]:
    """
    Return the check that every pushed event passes first.

    Raises:
        SettingError: Events would be open to anyone: the gateway does not authenticate ``/function/*``.
    """
    if settings.events_http_secret is not None:
        path = settings.secrets_dir / settings.events_http_secret
        _read_secret(path)
        return lambda request: _check_bearer(request, path)
    if settings.events_http_public:
        return lambda request: None
    raise SettingError(
        "EVENTS_HTTP_SECRET",
        "must name the secret that pushers of events show as bearer token, "
        "or EVENTS_HTTP_PUBLIC=true let anyone push them: the gateway authenticates no function",
    )


class EventsApp:
    """The ASGI app that pushed events go to."""

    def __init__(self, handlers: Sequence[EventHandler], check: Callable[[Request], None]) -> None:
        self._handlers = {kind: handler for handler in handlers for kind in handler.types}
        self._check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await self._settle(request)
        await response(scope, receive, send)

    async def _settle(self, request: Request) -> Response:
        if request.method != "POST":
            raise Problem(405, "events are pushed by POST", headers={"Allow": "POST"})
        self._check(request)
        attributes = await _attributes(request)
        kind = str(attributes.get("type", ""))
        handler = self._handlers.get(kind)
        if handler is None:
            OUTCOMES.inc(type="unknown", outcome="unknown")
            raise Problem(
                422,
                "no handler takes events of this type",
                errors=[FieldError("type", "unknown type")],
            )
        outcome, answer = await _outcome(handler, attributes)
        OUTCOMES.inc(type=kind, outcome=outcome)
        if isinstance(answer, Problem):
            raise answer
        return answer


async def _outcome(handler: EventHandler, attributes: Mapping[str, Any]) -> tuple[str, Response | Problem]:
    try:
        event = handler.model.model_validate(attributes)
    except ValidationError as exc:
        return "rejected", Problem(422, "the event is not valid", errors=_field_errors(exc))
    try:
        with span(
            f"process {event.type}",
            **{"cloudevents.event_id": event.id, "cloudevents.event_type": event.type},
        ):
            await _run(handler, event)
    except Reject as exc:
        logger.warning("event %s rejected: %s", event.id, exc.reason)
        return "rejected", Problem(422, exc.reason or "the event was rejected")
    except Retry as exc:
        after = _RETRY_AFTER_SECONDS if exc.after_seconds is None else exc.after_seconds
        return "retried", Problem(503, exc.reason or "the event is to be sent again", retry_after_seconds=after)
    except Exception:
        logger.exception("event %s failed in %s", event.id, handler.name)
        return "failed", Problem(503, "the handler failed; see its log", retry_after_seconds=_RETRY_AFTER_SECONDS)
    return "settled", Response(status_code=204)


async def _run(handler: EventHandler, event: Event[Any]) -> None:
    if inspect.iscoroutinefunction(handler.function):
        await handler.function(event)
    else:
        await run_in_threadpool(handler.function, event)


async def _attributes(request: Request) -> dict[str, Any]:
    """Read the event in whichever mode it came; its data is still unchecked."""
    try:
        body = await request.body()
    except HTTPException as exc:
        raise Problem(exc.status_code, exc.detail) from exc
    content_type = request.headers.get("content-type", "")
    if content_type.split(";")[0].strip().lower() == _STRUCTURED:
        return _structured(_json(body))
    if content_type.startswith("application/cloudevents"):
        raise Problem(415, "events come one at a time, in binary mode or as application/cloudevents+json")
    headers = {k[3:]: unquote(v) for k, v in request.headers.items() if k.startswith("ce-")}
    headers.setdefault("datacontenttype", content_type or "application/json")
    return {**_sorted_attributes(headers), "data": _data(body, headers["datacontenttype"])}


def _structured(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise Problem(400, "a structured event is a JSON object")
    data = document.pop("data", None)
    if "data_base64" in document:
        raise Problem(415, "data_base64 is not taken: send binary data in binary mode")
    return {**_sorted_attributes(document), "data": data}


def _sorted_attributes(given: Mapping[str, Any]) -> dict[str, Any]:
    known: dict[str, Any] = {name: value for name, value in given.items() if name in _ATTRIBUTES}
    known["extensions"] = {name: str(value) for name, value in given.items() if name not in _ATTRIBUTES}
    return known


def _data(body: bytes, content_type: str) -> Any:
    kind = content_type.split(";")[0].strip().lower()
    if kind == "application/json" or kind.endswith("+json"):
        return _json(body) if body else None
    return body.decode("utf-8", "replace") if kind.startswith("text/") else body


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Problem(400, "the event's JSON cannot be read") from None


def _field_errors(exc: ValidationError) -> list[FieldError]:
    return [FieldError(".".join(map(str, e["loc"])), e["msg"]) for e in exc.errors(include_input=False)]


def _check_bearer(request: Request, path: Path) -> None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    # The file is read each time: kubelet replaces it when the secret is rotated.
    shown = scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode("utf-8"), _read_secret(path))
    if not shown:
        raise Problem(
            401,
            "a valid bearer token is needed to push events",
            headers={"WWW-Authenticate": "Bearer"},
        )


def _read_secret(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            secret = file.read(_MAX_SECRET_BYTES).strip()
    except OSError as exc:
        raise SettingError("EVENTS_HTTP_SECRET", f"the secret cannot be read: {exc.strerror}") from None
    if not secret:
        raise SettingError("EVENTS_HTTP_SECRET", "the secret is empty")
    return secret

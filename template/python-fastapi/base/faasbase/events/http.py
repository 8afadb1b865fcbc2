"""
Events pushed over HTTP, in CloudEvents' binary or structured mode.

Taken is a POST that has one of the headers ``ce-specversion``, ``ce-id``, ``ce-source`` and ``ce-type`` (and needs them
all: binary mode, the data is the body), or a content type of ``application/cloudevents+json`` (structured mode, data as
JSON).  Not taken are batches and ``data_base64`` (415).  A request without any CloudEvents attribute is a call of the
function's HTTP surface, whatever its body holds.

What the handler says becomes a status: settled 204; never 4xx, which OpenFaaS' queue workers do not retry; again later
503 (or the handler's own 429) with ``Retry-After``.
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .. import metrics
from ..errors import FieldError, Problem, Reject, Retry
from ..tracing import span
from . import Event, EventHandler
from .guarding import Pushers

logger = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 5.0
"""When an event is to be sent again, where nobody knows better."""

OUTCOMES = metrics.counter("faas_events", "Events by what became of them.", ("type", "outcome"))

_STRUCTURED = "application/cloudevents+json"
_REQUIRED = ("ce-id", "ce-source", "ce-specversion", "ce-type")
_ATTRIBUTES = frozenset(("id", "source", "type", "specversion", "subject", "time", "datacontenttype", "dataschema"))
_MARKS = frozenset(name.encode("ascii") for name in _REQUIRED)
_CLOUDEVENTS = b"application/cloudevents"


def is_event(scope: Scope) -> bool:
    """
    Tell a pushed event from a call of the HTTP surface: by its content type, or one of CloudEvents' required headers.

    One of them is enough, so that an event which lacks others is refused and not taken for a call, and lost.
    """
    for name, value in scope["headers"]:
        if name in _MARKS or (name == b"content-type" and value.lower().startswith(_CLOUDEVENTS)):
            return True
    return False


class EventsApp:
    """The ASGI app that pushed events go to."""

    def __init__(self, handlers: Sequence[EventHandler], pushers: Pushers) -> None:
        self._handlers = {kind: handler for handler in handlers for kind in handler.types}
        self._pushers = pushers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        response = await self._settle(request)
        await response(scope, receive, send)

    async def _settle(self, request: Request) -> Response:
        if request.method != "POST":
            raise Problem(405, "events are pushed by POST", headers={"Allow": "POST"})
        await self._pushers.admit(request)
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
        after = RETRY_AFTER_SECONDS if exc.after_seconds is None else exc.after_seconds
        return "retried", Problem(503, exc.reason or "the event is to be sent again", retry_after_seconds=after)
    except Problem as exc:
        return _problem_outcome(exc, handler, event)
    except Exception:
        logger.exception("event %s failed in %s", event.id, handler.name)
        return "failed", Problem(503, "the handler failed; see its log", retry_after_seconds=RETRY_AFTER_SECONDS)
    return "settled", Response(status_code=204)


def _problem_outcome(problem: Problem, handler: EventHandler, event: Event[Any]) -> tuple[str, Problem]:
    """Pass on what the handler has answered: a 4xx gives the event up, all else has it sent again."""
    if problem.status < 500 and problem.status != 429:
        logger.warning("event %s rejected: %s", event.id, problem.detail)
        return "rejected", problem
    if problem.status in (429, 503):
        if not any(name.lower() == "retry-after" for name in problem.headers):
            problem.headers["Retry-After"] = f"{RETRY_AFTER_SECONDS:.0f}"
        return "retried", problem
    logger.error("event %s failed in %s: %s", event.id, handler.name, problem.detail, exc_info=problem)
    return "failed", Problem(503, problem.detail, errors=problem.errors, retry_after_seconds=RETRY_AFTER_SECONDS)


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
    kind = _media_type(content_type)
    if kind == _STRUCTURED:
        return _structured(_json(body))
    if kind.startswith(_CLOUDEVENTS.decode("ascii")):
        raise Problem(415, "events come one at a time, in binary mode or as application/cloudevents+json")
    return _binary(request.headers, content_type, body)


def _binary(headers: Headers, content_type: str, body: bytes) -> dict[str, Any]:
    missing = [FieldError(name, "is missing") for name in _REQUIRED if name not in headers]
    if missing:
        raise Problem(400, "an event in binary mode has four headers at least", errors=missing)
    given = {name[3:]: unquote(value) for name, value in headers.items() if name.startswith("ce-")}
    given.setdefault("datacontenttype", content_type or "application/json")
    return {**_sorted_attributes(given), "data": _data(body, given["datacontenttype"])}


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
    kind = _media_type(content_type)
    if kind == "application/json" or kind.endswith("+json"):
        return _json(body) if body else None
    return body.decode("utf-8", "replace") if kind.startswith("text/") else body


def _media_type(content_type: str) -> str:
    return content_type.split(";")[0].strip().lower()


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise Problem(400, "the event's JSON cannot be read") from None


def _field_errors(exc: ValidationError) -> list[FieldError]:
    return [FieldError(".".join(map(str, e["loc"])), e["msg"]) for e in exc.errors(include_input=False)]

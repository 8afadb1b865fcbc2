"""Tell callers, in the OpenAPI document, of the header that idempotent handlers want and of how they refuse."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi.routing import iter_route_contexts
from starlette.routing import BaseRoute

from ..routes import problem_responses
from .marks import Mark, mark_of
from .naming import HEADER, MAX_HEADER_CHARACTERS

_DESCRIPTION = "Chosen by the caller for one operation; a repeat under the same key gets the first answer again."


def document(schema: dict[str, Any], routes: Sequence[BaseRoute]) -> None:
    """Add to *schema*, the document of *routes*, what their idempotent handlers take and answer."""
    paths = schema.get("paths", {})
    for route in iter_route_contexts(routes):
        mark = mark_of(route.endpoint)
        if mark is None or not route.include_in_schema:
            continue
        operations = paths.get(route.path_format, {})
        for method in route.methods or ():
            if method.lower() in operations:
                _describe(operations[method.lower()], mark)


def _describe(operation: dict[str, Any], mark: Mark) -> None:
    if mark.by_header:
        _add_header(operation.setdefault("parameters", []), mark.required)
    for status, response in problem_responses(400, 409, 422, 503).items():
        operation["responses"].setdefault(str(status), response)


def _add_header(parameters: list[dict[str, Any]], required: bool) -> None:
    if any(p.get("in") == "header" and str(p.get("name")).lower() == HEADER.lower() for p in parameters):
        # The handler reads it itself, and has said so.
        return
    schema = {"type": "string", "minLength": 1, "maxLength": MAX_HEADER_CHARACTERS, "pattern": "^[!-~]+$"}
    parameters.append(
        {"name": HEADER, "in": "header", "required": required, "description": _DESCRIPTION, "schema": schema}
    )

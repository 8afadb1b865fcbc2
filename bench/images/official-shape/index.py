"""Serve ``handle(event, context)`` as python3-http does: Flask on waitress, with its four threads."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, jsonify, make_response, request
from function.handler import handle
from waitress import serve  # type: ignore[import-untyped]

METHODS = ("GET", "PUT", "POST", "PATCH", "DELETE")
app = Flask(__name__)


@dataclass(frozen=True)
class Event:
    """A call, as handlers are given it."""

    body: bytes
    headers: Any
    method: str
    query: Any
    path: str


@dataclass(frozen=True)
class Context:
    """Where a handler runs."""

    hostname: str


@app.route("/", defaults={"path": ""}, methods=METHODS)
@app.route("/<path:path>", methods=METHODS)
def answer(path: str) -> Response:
    event = Event(request.get_data(), request.headers, request.method, request.args, request.path)
    result = handle(event, Context(os.environ.get("HOSTNAME", "localhost")))
    body = result.get("body", "")
    response = jsonify(body) if isinstance(body, dict) else make_response(str(body))
    response.status_code = result.get("statusCode", 200)
    response.headers.update(result.get("headers", {}))
    return response


if __name__ == "__main__":
    serve(app, host="127.0.0.1", port=5000, threads=4)

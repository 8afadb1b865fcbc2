"""Handlers of the official ``python3-http`` template run unchanged."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.child import Process
from tests.processes import run_function
from tests.wire import call

pytestmark = pytest.mark.anyio

# One handler with every row that the official documentation shows, chosen by the path.
HANDLER = """
import json


def handle(event, context):
    return ANSWERS[event.path](event, context)


def described(event, context):
    facts = {
        "body": event.body.decode(),
        "type": type(event.body).__name__,
        "method": event.method,
        "path": event.path,
        "name": event.query["name"],
        "names": event.query.getlist("name"),
        "absent": event.query.get("absent", "default"),
        "content-type": event.headers.get("Content-Type"),
        "any-case": event.headers["x-custom"],
        "hostname": context.hostname,
    }
    return {"statusCode": 200, "body": facts}


ANSWERS = {
    "/json": lambda e, c: {
        "statusCode": 200,
        "body": {"message": "hi"},
        "headers": {"Content-Type": "application/json"},
    },
    "/dict": lambda e, c: {"statusCode": 200, "body": {"key": "value"}},
    "/text": lambda e, c: {"statusCode": 201, "body": "created"},
    "/error": lambda e, c: {"statusCode": 400, "body": {"error": "bad"}},
    "/headers": lambda e, c: {"statusCode": 200, "body": "", "headers": {"Location": "https://shop.example/"}},
    "/pairs": lambda e, c: {"body": "", "headers": [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")]},
    "/said": lambda e, c: {"statusCode": 200, "body": "You said: " + str(e.body)},
    "/event": described,
    "/none": lambda e, c: None,
    "/empty": lambda e, c: {},
    "/no-status": lambda e, c: {"body": "ok"},
    "/status-only": lambda e, c: {"statusCode": 204},
    "/bare": lambda e, c: "just text",
    "/tuple": lambda e, c: ("made", 201, {"X-Kind": "tuple"}),
    "/number": lambda e, c: {"body": 42},
    "/typed": lambda e, c: {"body": "<b/>", "headers": {"Content-Type": "application/xml"}},
    "/list": lambda e, c: {"body": [1, "two", None]},
    "/bytes": lambda e, c: {"body": bytes(range(256)), "headers": {"Content-Type": "image/png"}},
    "/plain-bytes": lambda e, c: {"body": bytes(range(256))},
    "/echo": lambda e, c: {"body": e.body},
    "/crash": lambda e, c: 1 / 0,
}
"""
TEXT = "text/html; charset=utf-8"


@pytest.fixture(scope="module")
async def function() -> AsyncIterator[Process]:
    """Run the classic handler."""
    async with run_function(HANDLER, HOSTNAME="pod-7") as process:
        await process.ready()
        yield process


@pytest.mark.parametrize(
    ("path", "status", "content_type", "body"),
    [
        ("/json", 200, "application/json", {"message": "hi"}),
        ("/dict", 200, "application/json", {"key": "value"}),
        ("/text", 201, TEXT, b"created"),
        ("/error", 400, "application/json", {"error": "bad"}),
        ("/said", 200, TEXT, b"You said: b''"),
        ("/none", 200, TEXT, b""),
        ("/empty", 200, TEXT, b""),
        ("/no-status", 200, TEXT, b"ok"),
        ("/bare", 200, TEXT, b"just text"),
        ("/tuple", 201, TEXT, b"made"),
        ("/number", 200, TEXT, b"42"),
        ("/typed", 200, "application/xml", b"<b/>"),
    ],
)
async def test_answer_is_the_official_one(
    function: Process, path: str, status: int, content_type: str, body: bytes | dict[str, Any]
) -> None:
    """Status, content type and body of each row that the documentation or the template's own code shows."""
    answer = await call(function.port, path)
    assert (answer.status, answer.header("content-type")) == (status, content_type)
    assert (answer.json() if isinstance(body, dict) else answer.body) == body


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ("/list", "application/json", b'[1, "two", null]'),
        ("/bytes", "image/png", bytes(range(256))),
        ("/plain-bytes", "application/octet-stream", bytes(range(256))),
    ],
)
async def test_answer_is_right_where_the_official_one_is_not(
    function: Process, path: str, content_type: str, body: bytes
) -> None:
    """The official template writes lists and bytes as Python would print them."""
    answer = await call(function.port, path)
    assert (answer.header("content-type"), answer.body) == (content_type, body)


async def test_event_and_context_have_the_official_fields(function: Process) -> None:
    """Body as bytes, headers in any case, method, query as a multi-dict, path; the host's name."""
    headers = {"Content-Type": "text/plain", "X-Custom": "yes"}
    answer = await call(function.port, "/event?name=ada&name=bob", method="POST", headers=headers, body=b"hello")
    assert answer.json() == {
        "body": "hello",
        "type": "bytes",
        "method": "POST",
        "path": "/event",
        "name": "ada",
        "names": ["ada", "bob"],
        "absent": "default",
        "content-type": "text/plain",
        "any-case": "yes",
        "hostname": "pod-7",
    }


async def test_missing_query_argument_is_the_callers_mistake(function: Process) -> None:
    """``event.query['name']`` without a name is 400, as with Flask."""
    headers = {"X-Custom": "yes"}
    assert (await call(function.port, "/event", headers=headers)).status == 400


async def test_headers_are_set_as_given(function: Process) -> None:
    """A dict of headers, and a list of pairs with one name twice."""
    located = await call(function.port, "/headers")
    cookies = await call(function.port, "/pairs")
    assert located.header("location") == "https://shop.example/"
    assert [v for n, v in cookies.headers if n == "set-cookie"] == ["a=1", "b=2"]


async def test_body_of_any_bytes_goes_in_and_out(function: Process) -> None:
    """Neither direction decodes."""
    body = bytes(range(256)) * 1000
    answer = await call(function.port, "/echo", method="PUT", body=body)
    assert answer.body == body


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD"])
async def test_verbs_are_served(function: Process, method: str) -> None:
    """The official five, and HEAD as Flask adds it."""
    answer = await call(function.port, "/dict", method=method)
    assert answer.status == 200
    assert bool(answer.body) == (method != "HEAD")


async def test_status_without_a_body(function: Process) -> None:
    """204 carries neither a body nor a length that is not 0."""
    assert (await call(function.port, "/status-only")).status == 204


async def test_crash_is_a_problem_and_a_log_line(function: Process) -> None:
    """500 without the trace, which is in the log."""
    answer = await call(function.port, "/crash")
    assert (answer.status, answer.header("content-type")) == (500, "application/problem+json")
    assert "ZeroDivisionError" not in answer.text
    assert "ZeroDivisionError" in await function.log_line("ZeroDivisionError")


async def test_slow_classic_handlers_run_side_by_side() -> None:
    """A plain ``def`` runs in a thread: four calls of half a second do not take two."""
    handler = "import time\n\n\ndef handle(event, context):\n    time.sleep(0.5)\n    return {'body': 'slept'}\n"
    async with run_function(handler) as function:
        await function.ready()
        start = time.monotonic()
        answers = await asyncio.gather(*(call(function.port, "/") for _ in range(4)))
        assert {answer.status for answer in answers} == {200}
        assert time.monotonic() - start < 1.5


async def test_async_classic_handler() -> None:
    """``async def handle(event, context)`` is the same contract."""
    handler = "async def handle(event, context):\n    return {'statusCode': 202, 'body': event.method}\n"
    async with run_function(handler) as function:
        answer = await call(function.port, "/", method="PATCH")
        assert (answer.status, answer.text) == (202, "PATCH")


FLASK = """
from flask import Response, jsonify, make_response


def handle(event, context):
    if event.path == "/stream":
        return Response((f"{n}\\n" for n in range(3)), mimetype="text/event-stream")
    if event.path == "/tuple":
        return Response("tuple"), 202, {"X-Kind": "tuple"}
    response = make_response("flask", 201)
    response.headers["X-Kind"] = "flask"
    response.set_cookie("a", "1")
    return response
"""


async def test_flask_responses_are_sent_as_they_are() -> None:
    """Flask is the handler's own requirement; its responses keep status, headers and stream."""
    async with run_function(FLASK) as function:
        made = await call(function.port, "/")
        streamed = await call(function.port, "/stream")
        wrapped = await call(function.port, "/tuple")
    assert (made.status, made.text, made.header("x-kind")) == (201, "flask", "flask")
    assert (made.header("set-cookie") or "").startswith("a=1")
    assert (streamed.text, streamed.header("content-type")) == (
        "0\n1\n2\n",
        "text/event-stream; charset=utf-8",
    )
    assert (wrapped.status, wrapped.header("x-kind")) == (202, "tuple")


OFFICIAL = os.environ.get("OFFICIAL_TEMPLATES", "")

if OFFICIAL:

    @pytest.mark.parametrize("template", ["python3-http", "python3-http-debian"])
    async def test_official_sample_handler_runs_byte_for_byte(template: str) -> None:
        """``OFFICIAL_TEMPLATES`` names a checkout of openfaas/python-flask-template; its samples run as they are."""
        folder = Path(OFFICIAL) / "template" / template / "function"
        async with run_function(folder) as function:
            answer = await call(function.port, "/")
            staged = (function.folder / "function" / "handler.py").read_bytes()
        assert (answer.status, answer.text) == (200, "Hello from OpenFaaS!")
        assert staged == (folder / "handler.py").read_bytes()

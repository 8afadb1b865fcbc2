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
from starlette.responses import PlainTextResponse

FRAMING = {
    "Content-Length": "5",
    "transfer-encoding": "chunked",
    "Connection": "keep-alive, upgrade",
    "Keep-Alive": "timeout=999",
    "Upgrade": "h2c",
    "Trailer": "Expires",
    "TE": "trailers",
    "X-Kind": "kept",
}


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
        "query": event.query.to_dict(),
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
    "/listed": lambda e, c: {
        "body": {
            "query": sorted(e.query),
            "arguments": len(e.query),
            "headers": sorted(e.headers.keys()),
            "pairs": ["X-Custom", "yes"] in [list(pair) for pair in e.headers.items()],
            "names": [name for name in e.headers if name.startswith("X-")],
        }
    },
    "/starlette": lambda e, c: PlainTextResponse("from Starlette", 203),
    "/framed": lambda e, c: {"body": "hello, world", "headers": FRAMING},
    "/framed-pairs": lambda e, c: {"body": "hello", "headers": list(FRAMING.items())},
    "/framed-tuple": lambda e, c: ("made", 200, FRAMING),
    "/flask-tuple": lambda e, c: ({"made": True}, "202", [("X-Kind", "pairs")]),
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
        "query": {"name": "ada"},
        "content-type": "text/plain",
        "any-case": "yes",
        "hostname": "pod-7",
    }


async def test_event_can_be_listed(function: Process) -> None:
    """Headers by the names that Flask gives them, arguments each once."""
    answer = await call(function.port, "/listed?b=1&a=2&b=3", headers={"X-Custom": "yes"})
    assert answer.json() == {
        "query": ["a", "b"],
        "arguments": 2,
        "headers": ["Connection", "Host", "X-Custom"],
        "pairs": True,
        "names": ["X-Custom"],
    }


async def test_other_responses_are_sent_as_they_are(function: Process) -> None:
    """Starlette's own, and Flask's tuple with a status as text and headers as pairs."""
    starlette = await call(function.port, "/starlette")
    pairs = await call(function.port, "/flask-tuple")
    assert (starlette.status, starlette.text) == (203, "from Starlette")
    assert (pairs.status, pairs.json(), pairs.header("x-kind")) == (202, {"made": True}, "pairs")


@pytest.mark.parametrize(("method", "status"), [("OPTIONS", 204), ("PROPFIND", 405)])
async def test_verbs_are_told(function: Process, method: str, status: int) -> None:
    """``Allow`` names the served ones."""
    answer = await call(function.port, "/dict", method=method)
    assert answer.status == status
    assert {"GET", "POST", "DELETE"} <= set((answer.header("allow") or "").split(", "))


async def test_body_over_the_limit_is_refused() -> None:
    """The classic form has no body model, and the same limit."""
    async with run_function(HANDLER, MAX_BODY_BYTES="1000") as function:
        head = {"Transfer-Encoding": "chunked"}
        body = b"7d0\r\n" + b"x" * 2000 + b"\r\n0\r\n\r\n"
        assert (await call(function.port, "/echo", method="POST", headers=head, body=body)).status == 413


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


# In the official template the handler runs inside a Flask view, so that these need no application of their own.
FLASK = """
import time

from flask import Response, jsonify, make_response, request


def handle(event, context):
    if event.path.startswith("/seen"):
        return jsonify(
            path=request.path,
            q=request.args["q"],
            length=request.content_length,
            body=request.get_data(as_text=True),
            custom=request.headers["X-Custom"],
        )
    if event.path.startswith("/closing"):
        pieces = (piece for piece in ("sent ", "in ", "pieces"))
        response = Response(pieces if event.path.endswith("stream") else "sent")
        response.call_on_close(lambda: print("closed", event.path))
        return response, 202, {"Content-Length": "3", "Connection": "keep-alive"}
    if event.path == "/endless":
        response = Response(endless())
        response.call_on_close(lambda: print("closed", event.path))
        return response
    if event.path == "/stream":
        return Response((f"{n}\\n" for n in range(3)), mimetype="text/event-stream")
    if event.path == "/tuple":
        return Response("tuple"), 202, {"X-Kind": "tuple"}
    response = make_response("flask", 201)
    response.headers["X-Kind"] = "flask"
    response.set_cookie("a", "1")
    return response


def endless():
    try:
        while True:
            yield "tick"
            time.sleep(0.1)
    finally:
        print("endless is over")
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


async def test_framing_is_ours_and_not_the_handlers(function: Process) -> None:
    """A second Content-Length, or one that lies, would let what follows on the connection be misread."""
    framing = {"content-length", "transfer-encoding", "connection", "keep-alive", "upgrade", "trailer", "te"}
    for path, body in (("/framed", "hello, world"), ("/framed-pairs", "hello"), ("/framed-tuple", "made")):
        answer = await call(function.port, path)
        names = [name for name, _ in answer.headers if name in framing]
        assert (answer.text, names.count("content-length"), answer.header("x-kind")) == (body, 1, "kept")
        assert answer.header("content-length") == str(len(body))
        assert set(names) <= {"content-length", "connection"}
        assert (answer.header("connection") or "close").lower() == "close"


async def test_query_of_any_bytes_and_any_host_are_read(function: Process) -> None:
    """Neither is the handler's own mistake."""
    headers = {"X-Custom": "yes", "Host": "[not-an-address:port"}
    answer = await call(function.port, "/event?name=%ff%E4%BD%A0", headers=headers)
    assert (answer.status, answer.json()["name"]) == (200, "\ufffd\u4f60")


async def test_flask_sees_the_call_as_it_came() -> None:
    """A path in UTF-8, several headers of one name, and no header that passes for another one's."""
    async with run_function(FLASK) as function:
        headers = {"Content_Length": "1", "X_Custom": "spoofed", "X-Custom": "yes", "Host": "shop.example:port"}
        path = "/seen/%E4%BD%A0/%ff?q=%E4%BD%A0"
        answer = await call(function.port, path, method="POST", headers=headers, body=b"hello")
    assert answer.json() == {
        "path": "/seen/\u4f60/\ufffd",
        "q": "\u4f60",
        "length": 5,
        "body": "hello",
        "custom": "yes",
    }


@pytest.mark.parametrize(("path", "body"), [("/closing", "sent"), ("/closing-stream", "sent in pieces")])
async def test_flask_is_told_when_a_response_is_over(path: str, body: str) -> None:
    """What `call_on_close` was given runs once, and a response in a tuple keeps our framing."""
    async with run_function(FLASK) as function:
        answer = await call(function.port, path)
        await function.log_line("closed " + path)
        assert (answer.status, answer.text, function.output().count("closed " + path)) == (202, body, 1)
    assert [value for name, value in answer.headers if name == "content-length"] in ([], [str(len(body))])


async def test_flask_is_told_when_the_client_has_left() -> None:
    """A stream that nobody reads to its end is closed too."""
    async with run_function(FLASK) as function:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await call(function.port, "/endless")
        await function.log_line("closed /endless")
        await function.log_line("endless is over")
        assert "Traceback" not in function.output()


@pytest.mark.checkout("OFFICIAL_TEMPLATES")
@pytest.mark.parametrize("template", ["python3-http", "python3-http-debian"])
async def test_official_sample_handler_runs_byte_for_byte(template: str) -> None:
    """``OFFICIAL_TEMPLATES`` names a checkout of openfaas/python-flask-template; its samples run as they are."""
    folder = Path(os.environ["OFFICIAL_TEMPLATES"]) / "template" / template / "function"
    async with run_function(folder) as function:
        answer = await call(function.port, "/")
        staged = (function.folder / "function" / "handler.py").read_bytes()
    assert (answer.status, answer.text) == (200, "Hello from OpenFaaS!")
    assert staged == (folder / "handler.py").read_bytes()

"""What handlers answer themselves: by any ASGI app, by bad statuses and headers, over connections that live on."""

from __future__ import annotations

import asyncio
import signal
import socket
import struct

import pytest

from tests.child import Process
from tests.otlp_sink import otlp_sink
from tests.processes import run_function
from tests.wire import call, opened, request_bytes

pytestmark = pytest.mark.anyio

BARE = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"bare"})
"""
LINGERING = """
import asyncio


async def app(scope, receive, send):
    assert scope["type"] == "http"
    body = b""
    while (message := await receive()).get("more_body"):
        body += message["body"]
    body += message.get("body", b"")
    length = str(len(body)).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await asyncio.sleep(0.2)
    await send({"type": "http.response.body", "body": b""})
"""
DOCUMENTED = """
from contextlib import asynccontextmanager

from fastapi import FastAPI

life = []


@asynccontextmanager
async def lifespan(app):
    life.append("started")
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def root() -> list[str]:
    return life
"""
CLASSIC = """
from faasbase import Problem


def handle(event, context):
    if event.path == "/status":
        return {"statusCode": 700}
    if event.path == "/header":
        return {"headers": {"X-Reflected": "one\\r\\nset-cookie: two"}}
    if event.path == "/refused":
        raise Problem(409, "already there", headers={"X-Note": "gr\\u00fc\\u00df \\u4f60"})
    if event.path == "/large":
        return b"x" * 8_000_000
    raise RuntimeError("broken")
"""
STREAM = """
import asyncio

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

router = APIRouter()


@router.get("/")
async def endless() -> StreamingResponse:
    async def pieces():
        while True:
            yield b"data: x\\n\\n"
            await asyncio.sleep(0.05)

    return StreamingResponse(pieces(), media_type="text/event-stream")
"""
READY = """
import asyncio


async def ready() -> bool:
    await asyncio.sleep(0.3)
    return True


async def handle() -> str:
    return ""
"""


async def test_app_that_knows_no_lifespan_ends_well() -> None:
    """Most bare ASGI apps refuse the lifespan scope; that is no failure, neither at start nor at the end."""
    async with run_function(BARE) as function:
        assert (await call(function.port)).body == b"bare"
        function.send_signal(signal.SIGTERM)
        assert await function.exited() == 0


async def test_lifespan_that_the_app_was_given_may_stand_beside_it() -> None:
    """As FastAPI documents it."""
    async with run_function(DOCUMENTED) as function:
        assert (await call(function.port)).json() == ["started"]


@pytest.mark.parametrize("path", ["/status", "/header"])
async def test_answer_that_no_client_could_read_is_a_500(path: str) -> None:
    """A status that is none, or a line break in a header, which a caller's text could have brought there."""
    async with run_function(CLASSIC) as function:
        answer = await call(function.port, path)
        assert (answer.status, answer.header("content-type")) == (500, "application/problem+json")
        assert answer.header("set-cookie") is None


async def test_problem_may_have_any_text_in_its_headers() -> None:
    async with run_function(CLASSIC) as function:
        answer = await call(function.port, "/refused")
        assert (answer.status, answer.json()["detail"]) == (409, "already there")


@pytest.mark.parametrize(("path", "status"), [("/refused", 409), ("/crash", 500)])
async def test_span_tells_the_status_that_the_caller_got(path: str, status: int) -> None:
    """Also where the form knows no problem details of its own."""
    with otlp_sink() as sink:
        async with run_function(CLASSIC, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url) as function:
            assert (await call(function.port, path)).status == status
            function.send_signal(signal.SIGTERM)
            assert await function.exited() == 0
        (span,) = sink.of_kind("SERVER")
    assert span.attributes["http.response.status_code"] == status


async def test_large_answers_on_one_connection_have_a_deadline_each() -> None:
    """The first one's is over when the second is under way."""
    async with run_function(CLASSIC, write_timeout="2s") as function, opened(function.port) as connection:
        for _ in range(2):
            await connection.send(request_bytes("GET", "/large"))
            await asyncio.sleep(0.3)
            answer = await connection.answer(timeout_seconds=5)
            assert len(answer.body) == 8_000_000
            await asyncio.sleep(1.3)


async def test_request_behind_an_answer_that_has_not_ended_keeps_its_body() -> None:
    """A client that has all of the announced length goes on, while the handler has not said yet that it is through."""
    async with run_function(LINGERING) as function, opened(function.port) as connection:
        for text in (b"first", b"second", b"third"):
            await connection.send(request_bytes("POST", "/", body=text))
            assert (await connection.answer(timeout_seconds=5)).body == text


async def test_stream_that_is_cut_at_the_end_is_no_crash() -> None:
    """Every roll-out would else fill the log with tracebacks."""
    async with run_function(STREAM, write_timeout="20s", termination_grace_period="2s") as function:
        async with opened(function.port) as connection:
            await connection.send(request_bytes("GET", "/", {"Accept": "text/event-stream"}))
            await connection.head()
            function.send_signal(signal.SIGTERM)
            assert await function.exited() == 0
        assert "Traceback" not in function.output()
        assert "Exception in ASGI" not in function.output()


async def test_probes_that_come_together_get_one_answer() -> None:
    """The kubelet, the gateway and a person may ask at the same time."""
    async with run_function(READY) as function:
        answers = await asyncio.gather(*(call(function.port, "/_/ready") for _ in range(4)))
        assert [answer.status for answer in answers] == [200] * 4


async def test_ready_path_is_no_call_but_a_caller_may_make_one() -> None:
    """Its probes make no span, the same path called from outside does."""
    source = (
        "from fastapi import APIRouter\nrouter = APIRouter()\n"
        "@router.get('/warm')\nasync def warm() -> str:\n    return 'warm'\n"
    )
    with otlp_sink() as sink:
        env = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, "ready_path": "/warm"}
        async with run_function(source, **env) as function:
            await function.ready()
            assert (await call(function.port, "/_/ready")).body == b'"warm"'
            assert (await call(function.port, "/warm")).status == 200
            function.send_signal(signal.SIGTERM)
            assert await function.exited() == 0
        assert len(sink.of_kind("SERVER")) == 1


async def test_idle_connections_that_are_reset_leave_nothing(tmp_path: object) -> None:
    """A load balancer that resets them for months must not fill the memory."""
    async with run_function(CLASSIC) as function:
        await _reset_idle(function, 200)
        before = function.resident_bytes()
        await _reset_idle(function, 1500)
        assert function.resident_bytes() - before < 6 << 20


async def _reset_idle(function: Process, count: int) -> None:
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", function.port)) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.sendall(request_bytes("GET", "/refused"))
            await asyncio.to_thread(client.recv, 4096)

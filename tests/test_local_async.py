"""Asynchronous calls through the embedded OpenFaaS, and their callbacks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
import pytest

from tests.local_up import Up, make_project, up
from tests.wire import call

pytestmark = pytest.mark.anyio

WORK = """
import asyncio
from fastapi import Request, Response

running = 0

async def handle(request: Request):
    global running
    running += 1
    at_once = running
    await asyncio.sleep(float(request.query_params.get("seconds", 0)))
    running -= 1
    body = await request.body()
    starts = request.headers.getlist("x-start-time")
    path = request.url.path.removeprefix("/function/clerk")
    text = f"{request.method} {path} {body.decode()} {at_once} {len(starts)}"
    return Response(text, status_code=int(request.query_params.get("status", 200)), headers={"X-Own": "mine"})
"""
BROKEN = "import nothing_of_this_name\n"


@dataclass
class Receiver:
    """A server that callbacks are sent to."""

    url: str
    got: asyncio.Queue[tuple[dict[str, str], str]] = field(default_factory=asyncio.Queue)

    async def next(self) -> tuple[dict[str, str], str]:
        """Return headers and body of the next callback."""
        with anyio.fail_after(10):
            return await self.got.get()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Serve callbacks; chunked bodies are undone."""
    receiver = Receiver("")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        headers["request-line"] = head[0]
        length = int(headers.get("content-length", 0))
        body = (await reader.readexactly(length)).decode()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()
        receiver.got.put_nowait((headers, body))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        yield receiver


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    project = make_project(tmp_path_factory.mktemp("async"), {"clerk": WORK, "broken": BROKEN})
    with up(project) as running:
        yield running


async def test_call_is_accepted_at_once_and_its_answer_posted_to_the_callback(local: Up) -> None:
    async with receiving() as receiver:
        path = "/async-function/clerk/orders?seconds=0.5&status=201"
        answer = await call(local.port, path, method="POST", headers={"X-Callback-Url": receiver.url}, body=b"hi")
        assert (answer.status, answer.body) == (202, b"")
        assert answer.seconds < 0.4
        headers, body = await receiver.next()
    assert headers["request-line"] == "POST /hook HTTP/1.1"
    # Two start times: when it was queued, and when it was called.
    assert body == "POST /orders hi 1 2"
    assert headers["x-call-id"] == answer.header("X-Call-Id")
    assert headers["x-function-name"] == "clerk"
    assert headers["x-function-status"] == "201"
    assert float(headers["x-duration-seconds"]) >= 0.5
    assert headers["x-own"] == "mine"


async def test_calls_of_a_function_run_one_after_the_other(local: Up) -> None:
    async with receiving() as receiver:
        for _ in range(3):
            headers = {"X-Callback-Url": receiver.url}
            await call(local.port, "/async-function/clerk?seconds=0.1", method="POST", headers=headers)
        bodies = [(await receiver.next())[1] for _ in range(3)]
    assert [body.split()[-2] for body in bodies] == ["1", "1", "1"]


async def test_failed_call_is_not_repeated_and_its_status_posted(local: Up) -> None:
    async with receiving() as receiver:
        headers = {"X-Callback-Url": receiver.url}
        await call(local.port, "/async-function/clerk?status=500", method="POST", headers=headers)
        assert (await receiver.next())[0]["x-function-status"] == "500"
        await anyio.sleep(0.3)
        assert receiver.got.empty()


async def test_function_that_does_not_run_is_told_to_the_callback_as_503(local: Up) -> None:
    async with receiving() as receiver:
        headers = {"X-Callback-Url": receiver.url, "X-Call-Id": "chosen"}
        await call(local.port, "/async-function/broken", method="POST", headers=headers)
        got, body = await receiver.next()
        sync = (await call(local.port, "/function/broken", headers={"X-Call-Id": "chosen"})).json()
    assert (got["x-function-status"], got["x-call-id"]) == ("503", "chosen")
    assert got["content-type"] == "application/problem+json"
    assert "nothing_of_this_name is not installed" in sync["detail"]
    assert json.loads(body) == sync


@pytest.mark.parametrize("url", ["file:///etc/passwd", "gopher://127.0.0.1/x", "http://", "nonsense"])
async def test_callback_url_that_is_not_http_is_refused(local: Up, url: str) -> None:
    answer = await call(local.port, "/async-function/clerk", method="POST", headers={"X-Callback-Url": url})
    assert answer.status == 400
    assert "X-Callback-Url" in answer.text


async def test_callback_that_nobody_takes_is_reported(local: Up) -> None:
    headers = {"X-Callback-Url": "http://127.0.0.1:9/"}
    assert (await call(local.port, "/async-function/clerk", method="POST", headers=headers)).status == 202
    await local.says("clerk: callback failed: ConnectError")


async def test_queue_has_a_bound(local: Up) -> None:
    statuses = []
    for _ in range(104):
        answer = await call(local.port, "/async-function/clerk?seconds=0.2", method="POST")
        statuses.append(answer.status)
    assert set(statuses) == {202, 500}
    assert "Error queuing request" in answer.text
    assert answer.header("X-OpenFaaS-Internal") == "proxy"


async def test_only_post_is_asynchronous(local: Up) -> None:
    answer = await call(local.port, "/async-function/clerk")
    assert (answer.status, answer.header("Allow")) == (405, "POST")
    assert (await call(local.port, "/async-function/nope", method="POST")).status == 404

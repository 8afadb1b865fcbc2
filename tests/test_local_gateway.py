"""The gateway of the embedded OpenFaaS, as callers of functions see it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from tests.local_up import Up, make_project, up, wait_until
from tests.wire import WireError, call, opened, request_bytes

pytestmark = pytest.mark.anyio

ECHO = """
from fastapi import Request, Response

async def handle(request: Request):
    body = await request.body()
    head = {"path": request.scope["raw_path"].decode(), "query": request.url.query, "method": request.method}
    if request.query_params.get("bytes"):
        return Response(body, headers={"X-Own": "yes", "Connection": "x-own-hop", "X-Own-Hop": "1", "Keep-Alive": "9"})
    return head | {"headers": request.headers.items(), "length": len(body)}
"""
SLOW = """
import asyncio
import os
from pathlib import Path
from fastapi import APIRouter
from fastapi.responses import StreamingResponse

router = APIRouter()

@router.get("/pieces")
async def pieces():
    async def three():
        for number in range(3):
            yield f"{number}\\n".encode()
            await asyncio.sleep(0.3)
    return StreamingResponse(three())

@router.get("/sleep")
async def sleep(seconds: float, mark: str = ""):
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        Path(mark).touch()
        raise
    return "slept"

@router.get("/die")
async def die():
    async def half():
        yield b"half of it"
        await asyncio.sleep(0.2)
        os._exit(3)
    return StreamingResponse(half())
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    project = make_project(tmp_path_factory.mktemp("gateway"), {"echo": ECHO, "slow": SLOW})
    with up(project, upstream_timeout="2s") as running:
        yield running


async def test_call_reaches_the_function_without_its_prefix(local: Up) -> None:
    answer = await call(local.port, "/function/echo/a%20b/c%2Fd?x=%C3%A9&y", method="PUT", body=b"abc")
    seen = answer.json()
    assert answer.status == 200
    assert seen["path"].removeprefix("/function/echo") == "/a%20b/c%2Fd"
    assert (seen["query"], seen["method"], seen["length"]) == ("x=%C3%A9&y", "PUT", 3)


async def test_call_carries_the_gateways_headers(local: Up) -> None:
    answer = await call(local.port, "/function/echo", headers={"Host": "shop.example"})
    seen = dict(answer.json()["headers"])
    assert seen["x-forwarded-host"] == "shop.example"
    assert seen["x-forwarded-for"].startswith("127.0.0.1:")
    assert seen["x-call-id"] == answer.header("X-Call-Id")
    assert seen["x-start-time"] == answer.header("X-Start-Time")
    assert int(seen["x-start-time"]) > 10**18
    assert answer.header("X-Served-By") == "openfaas-local"


async def test_call_id_of_the_caller_is_kept(local: Up) -> None:
    answer = await call(local.port, "/function/echo", headers={"X-Call-Id": "my-own-id"})
    assert dict(answer.json()["headers"])["x-call-id"] == "my-own-id"


async def test_headers_that_end_at_a_hop_are_not_passed_on(local: Up) -> None:
    hop = {"Connection": "close, X-Mine", "X-Mine": "1", "TE": "trailers", "Keep-Alive": "timeout=5", "X-Kept": "2"}
    seen = dict((await call(local.port, "/function/echo", headers=hop)).json()["headers"])
    assert seen["x-kept"] == "2"
    assert not {"x-mine", "te", "keep-alive"} & set(seen)
    answer = await call(local.port, "/function/echo?bytes=1")
    assert answer.header("X-Own") == "yes"
    assert answer.header("Keep-Alive") is None
    assert answer.header("X-Own-Hop") is None


@pytest.mark.parametrize("length", [0, 1, 3_000_000])
async def test_body_comes_back_byte_for_byte(local: Up, length: int) -> None:
    body = bytes(range(256)) * (length // 256) + b"x" * (length % 256)
    answer = await call(local.port, "/function/echo?bytes=1", method="POST", body=body)
    assert answer.body == body


async def test_body_of_unknown_length_arrives_whole(local: Up) -> None:
    async with opened(local.port) as connection:
        head = {"Transfer-Encoding": "chunked"}
        await connection.send(request_bytes("POST", "/function/echo", head))
        for _ in range(3):
            await connection.send(b"5\r\nhello\r\n")
            await anyio.sleep(0.05)
        await connection.send(b"0\r\n\r\n")
        answer = await connection.answer()
    assert answer.json()["length"] == 15


async def test_answer_arrives_piece_by_piece(local: Up) -> None:
    answer = await call(local.port, "/function/slow/pieces")
    assert answer.body == b"0\n1\n2\n"
    assert answer.pieces[0].at_seconds < 0.25 < answer.pieces[-1].at_seconds


async def test_client_that_leaves_cancels_the_handler(local: Up, tmp_path: Path) -> None:
    mark = tmp_path / "cancelled"
    async with opened(local.port) as connection:
        await connection.send(request_bytes("GET", f"/function/slow/sleep?seconds=30&mark={mark}"))
        await anyio.sleep(0.3)
    await anyio.to_thread.run_sync(lambda: wait_until(mark.exists, "cancelled", 1.5))


async def test_call_over_the_upstream_timeout_is_answered_502(local: Up, tmp_path: Path) -> None:
    answer = await call(local.port, f"/function/slow/sleep?seconds=30&mark={tmp_path / 'mark'}")
    assert answer.status == 502
    assert answer.header("X-OpenFaaS-Internal") == "proxy"
    assert 1.9 < answer.seconds < 4


async def test_answer_cut_short_does_not_look_whole(local: Up) -> None:
    with pytest.raises(WireError):
        await call(local.port, "/function/slow/die")
    await local.says("slow: crashed")


@pytest.mark.parametrize(
    ("name", "status"),
    [("echo", 200), ("echo.openfaas-fn", 200), ("echo.elsewhere", 404), ("nope", 404)],
)
async def test_function_is_found_by_name_and_namespace(local: Up, name: str, status: int) -> None:
    answer = await call(local.port, f"/function/{name}")
    assert answer.status == status
    if status == 404:
        assert f"error finding function {name}" in answer.text
        assert "echo, slow" in answer.text


async def test_request_for_a_tunnel_is_refused(local: Up) -> None:
    assert (await call(local.port, "/function/echo", method="CONNECT")).status == 405


async def test_calls_on_one_connection_take_no_extra_time(local: Up) -> None:
    seconds = []
    async with opened(local.port) as connection:
        for _ in range(30):
            await connection.send(request_bytes("POST", "/function/echo?bytes=1", {}, b"x" * 5000))
            seconds.append((await connection.answer()).seconds)
    # Each would take 40 ms more if either side waited for acknowledgements before it sends the next piece.
    assert sorted(seconds)[len(seconds) // 2] < 0.03


async def test_other_paths_have_the_gateways_answers(local: Up) -> None:
    health = await call(local.port, "/healthz")
    assert (health.status, health.text) == (200, "OK")
    assert "/function/<name>" in (await call(local.port, "/")).text
    assert (await call(local.port, "/nothing/here")).status == 404
    for method, path in [("POST", "functions"), ("PUT", "functions"), ("DELETE", "functions")]:
        refused = await call(local.port, f"/system/{path}", method=method, body=b"{}")
        assert refused.status == 501
        assert "stack file" in refused.text
    assert (await call(local.port, "/system/scale-function/echo", method="POST")).status == 501

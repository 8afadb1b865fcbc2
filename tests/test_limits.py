"""Bodies, heads and times have limits: what exceeds them is refused or cut, and costs little meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from tests.child import Process
from tests.processes import run_function
from tests.wire import Connection, call, opened, request_bytes

pytestmark = pytest.mark.anyio

GROWTH_BYTES = 48 << 20

HANDLER = """
import asyncio

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

router = APIRouter()


@router.get("/items/{number}")
async def item(number: int) -> dict[str, int]:
    return {"number": number}


@router.post("/upload")
async def upload(request: Request) -> dict[str, int]:
    return {"bytes": len(await request.body())}


@router.post("/unread")
async def unread() -> None:
    await asyncio.sleep(1)


@router.get("/large")
async def large() -> Response:
    return Response(b"x" * 20_000_000)


@router.get("/endless")
async def endless() -> StreamingResponse:
    async def pieces():
        while True:
            yield b"x" * 65536

    return StreamingResponse(pieces())
"""
SETTINGS = {"read_timeout": "800ms", "exec_timeout": "5s", "MAX_BODY_BYTES": "1000000"}


@pytest.fixture(scope="module")
async def function() -> AsyncIterator[Process]:
    """Run the function whose limits are tried."""
    async with run_function(HANDLER, **SETTINGS) as process:
        await process.ready()
        yield process


@pytest.mark.parametrize("chunked", [False, True], ids=["counted", "chunked"])
async def test_body_over_the_limit_is_refused(function: Process, chunked: bool) -> None:
    """413, at once where the length is announced, and at the limit where it is not."""
    # Ten thousand in hexadecimal are 65,536.
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    async with opened(function.port) as connection:
        if chunked:
            head = request_bytes("POST", "/upload", {"Transfer-Encoding": "chunked"})
            await connection.send(head + piece * 16)
        else:
            await connection.send(request_bytes("POST", "/upload", {"Content-Length": "100000000"}))
        answer = await connection.answer(method="POST", timeout_seconds=3)
    assert (answer.status, answer.header("content-type")) == (413, "application/problem+json")
    assert answer.json()["status"] == 413


async def test_body_at_the_limit_is_taken(function: Process) -> None:
    """The limit itself is still allowed."""
    answer = await call(function.port, "/upload", method="POST", body=b"x" * 1_000_000)
    assert answer.json() == {"bytes": 1_000_000}


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: h\r\nX-Long: " + b"a" * 70_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(9000)) + b"\r\n",
    ],
    ids=["one header", "path", "many headers"],
)
async def test_head_over_the_limit_is_431(function: Process, data: bytes) -> None:
    """Long headers, a long path and many headers are told apart from a bad request."""
    async with opened(function.port) as connection:
        await connection.send(data)
        answer = await connection.answer(timeout_seconds=3)
    assert answer.status == 431


async def test_endless_header_is_cut(function: Process) -> None:
    """A client that never ends its head cannot fill memory."""
    before = function.resident_bytes()
    async with opened(function.port) as connection:
        await connection.send(b"GET / HTTP/1.1\r\nHost: h\r\nX-Long: ")
        with pytest.raises(OSError, match=r"reset|lost|pipe|closed"):
            await flooded(connection)
    assert function.resident_bytes() - before < 8 << 20


async def test_one_unfinished_header_is_refused_long_before_the_read_timeout() -> None:
    """A header counts from its first byte, and not only once the parser has it whole."""
    async with run_function(HANDLER) as function, opened(function.port) as connection:
        await connection.send(b"GET / HTTP/1.1\r\nHost: h\r\nX-Long: ")
        for _ in range(8):
            await connection.send(b"a" * 65536)
        assert (await connection.answer(timeout_seconds=3)).status == 431


HALF = b"GET / HTTP/1.1\r\nHost: h\r\n"
UPLOAD = b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n"


async def flooded(connection: Connection, piece: bytes = b"a" * 65536) -> None:
    """Send *piece* over and over, 128 MiB of it."""
    for _ in range(2000):
        await connection.send(piece)


@pytest.mark.parametrize(
    ("beginning", "more"),
    [(b"", b""), (b"GE", b""), (HALF, b"x"), (UPLOAD, b"x")],
    ids=["nothing", "verb", "head", "body"],
)
async def test_slow_sender_is_cut_by_read_timeout(function: Process, beginning: bytes, more: bytes) -> None:
    """A byte now and then does not keep the connection: the whole request has its time."""
    async with opened(function.port) as connection, asyncio.TaskGroup() as tasks:
        await connection.send(beginning)
        trickle = tasks.create_task(trickled(connection, more))
        await asyncio.wait_for(connection.reader.read(), 5)
        seconds = time.monotonic() - connection.sent_at
        trickle.cancel()
    assert 0.6 < seconds < 4.0


@pytest.mark.parametrize("framing", ["Content-Length: 50", "Transfer-Encoding: chunked", "Transfer-Encoding: identity"])
async def test_websocket_handshake_that_never_ends_is_cut(function: Process, framing: str) -> None:
    """A handshake has no body: one that announces it is refused, or cut by ``read_timeout``."""
    head = f"GET /items/7 HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{framing}\r\n\r\n"
    async with opened(function.port) as connection:
        await connection.send(head.encode() + b"ab")
        rest = await asyncio.wait_for(connection.reader.read(), 4)
    assert rest == b"" or rest.startswith(b"HTTP/1.1 4")


async def trickled(connection: Connection, more: bytes) -> None:
    """Send *more*, which may be part of anything, five times a second."""
    for _ in range(50):
        await asyncio.sleep(0.2)
        connection.writer.write(more)


async def test_body_that_nobody_reads_costs_no_memory(function: Process) -> None:
    """The sender is made to wait as long as the handler does not read."""
    before = function.resident_bytes()
    async with opened(function.port) as connection:
        await connection.send(request_bytes("POST", "/unread", {"Transfer-Encoding": "chunked"}))
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(0.5):
                await flooded(connection, b"10000\r\n" + b"x" * 65536 + b"\r\n")
        assert function.resident_bytes() - before < 8 << 20
    assert (await call(function.port, "/items/1")).status == 200


@pytest.mark.parametrize("path", ["/large", "/endless"])
async def test_client_that_does_not_read_is_cut_by_write_timeout(path: str) -> None:
    """Neither its connection nor what was to be sent stays with us."""
    async with run_function(HANDLER, **SETTINGS, write_timeout="1s") as process, AsyncExitStack() as clients:
        await process.ready()
        before = process.resident_bytes()
        for _ in range(5):
            client = await clients.enter_async_context(opened(process.port))
            # Nobody reads the stream's buffer, so that after its limit the kernel's fills up, and then the sender's.
            await client.send(request_bytes("GET", path))
        await asyncio.sleep(2.5)
        assert connections(process) == 0
        assert process.resident_bytes() - before < GROWTH_BYTES


def connections(process: Process) -> int:
    """Return the number of established connections to the port of *process*."""
    # A client over IPv4 stands in the second table where the server listens on both families.
    tables = [Path(f"/proc/net/{name}") for name in ("tcp", "tcp6")]
    rows = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    # 01 is the kernel's ESTABLISHED; the client's own end has the port in its third column.
    return sum(row[1].endswith(f":{process.port:04X}") and row[3] == "01" for row in rows)


async def test_many_slow_senders_keep_nobody_out(function: Process) -> None:
    """Three hundred half requests stand open, and calls are answered as ever."""
    slow: list[Connection] = []
    try:
        for _ in range(300):
            connection = await opened(function.port).__aenter__()
            slow.append(connection)
            await connection.send(b"GET / HTTP/1.1\r\nHost: ")
        answer = await call(function.port, "/items/1", timeout_seconds=2)
    finally:
        for connection in slow:
            connection.close()
    assert answer.status == 200

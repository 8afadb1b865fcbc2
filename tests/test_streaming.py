"""What a handler sends reaches its caller piece by piece, and a caller who leaves ends it."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import websockets

from tests.child import Process
from tests.processes import run_function
from tests.wire import Answer, call, opened, request_bytes

pytestmark = pytest.mark.anyio

HANDLER = """
import asyncio
import tempfile
import time
from pathlib import Path

from fastapi import APIRouter, Request, WebSocket
from fastapi.responses import FileResponse, StreamingResponse

router = APIRouter()
ended: list[str] = []
FILE = Path(tempfile.gettempdir()) / "page.bin"
FILE.write_bytes(bytes(range(256)) * 4096)


async def counted(name: str, count: int, pause: float):
    try:
        for number in range(count):
            yield f"data: {number}\\n\\n"
            await asyncio.sleep(pause)
    finally:
        ended.append(name)


@router.get("/events")
async def events(name: str, count: int = 3, pause: float = 0.3) -> StreamingResponse:
    return StreamingResponse(counted(name, count, pause), media_type="text/event-stream")


@router.get("/threaded")
def threaded(name: str) -> StreamingResponse:
    def pieces():
        for number in range(3):
            yield f"{number}\\n"
            time.sleep(0.3)

    return StreamingResponse(pieces(), media_type="application/x-ndjson")


@router.post("/sum")
async def sum_of_pieces(request: Request) -> dict[str, list[int]]:
    return {"sizes": [len(piece) async for piece in request.stream()]}


@router.post("/parrot")
async def parrot(request: Request) -> StreamingResponse:
    return StreamingResponse(request.stream(), media_type="application/octet-stream")


@router.get("/file")
async def file() -> FileResponse:
    return FileResponse(FILE)


@router.get("/wait")
async def wait(name: str) -> None:
    try:
        await asyncio.sleep(20)
    finally:
        ended.append(name)


@router.get("/ended")
async def all_ended() -> list[str]:
    return ended


@router.websocket("/socket")
async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        async for text in websocket.iter_text():
            await websocket.send_text(text.upper())
    finally:
        ended.append("socket")
"""


@pytest.fixture(scope="module")
async def function() -> AsyncIterator[Process]:
    """Run the function that all these tests call."""
    async with run_function(HANDLER) as process:
        await process.ready()
        yield process


async def ended(function: Process, name: str) -> float:
    """Return the seconds until the handler called *name* has ended."""
    start = time.monotonic()
    while name not in (await call(function.port, "/ended")).json():
        assert time.monotonic() - start < 5, f"{name} goes on"
    return time.monotonic() - start


def moments(answer: Answer) -> list[float]:
    """Return when the pieces of *answer* arrived, in seconds."""
    return [piece.at_seconds for piece in answer.pieces]


@pytest.mark.parametrize("path", ["/events?name=pieces", "/threaded?name=pieces"])
async def test_pieces_arrive_when_they_are_sent(function: Process, path: str) -> None:
    """The first piece does not wait for the last, whatever the caller says that it accepts."""
    answer = await call(function.port, path)
    first, *_, last = moments(answer)
    assert answer.status == 200
    assert len(answer.pieces) == 3
    assert last - first > 0.4


async def test_server_sent_events_are_announced_as_such(function: Process) -> None:
    """The content type is one that proxies do not buffer."""
    answer = await call(function.port, "/events?name=type&pause=0", headers={"Accept": "text/event-stream"})
    assert (answer.header("content-type") or "").startswith("text/event-stream")
    assert answer.text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"


async def test_body_is_handed_on_while_it_arrives(function: Process) -> None:
    """A handler that sends back what it reads answers before the body is complete."""
    async with opened(function.port) as connection:
        head = request_bytes("POST", "/parrot", {"Transfer-Encoding": "chunked"})
        await connection.send(head + b"5\r\nfirst\r\n")
        status, headers = await connection.head()
        pieces = connection.pieces("POST", status, headers)
        assert (await anext(pieces)).data == b"first"
        await connection.send(b"4\r\nlast\r\n0\r\n\r\n")
        assert [piece.data async for piece in pieces] == [b"last"]


async def test_file_is_sent_whole_and_in_ranges(function: Process, tmp_path: Path) -> None:
    """A file response has its length, and a range of it is 206."""
    whole = await call(function.port, "/file")
    part = await call(function.port, "/file", headers={"Range": "bytes=256-511"})
    assert len(whole.body) == 256 * 4096
    assert whole.header("content-length") == str(256 * 4096)
    assert (part.status, part.body) == (206, bytes(range(256)))


async def test_websocket_answers_each_message(function: Process) -> None:
    """A WebSocket stays open for more than one message, and its end ends the handler."""
    async with websockets.connect(f"ws://127.0.0.1:{function.port}/socket") as socket:
        for text in ("one", "two"):
            await socket.send(text)
            assert await socket.recv() == text.upper()
    await ended(function, "socket")


async def test_caller_who_leaves_cancels_the_handler(function: Process) -> None:
    """Work that nobody waits for is not done."""
    async with opened(function.port) as connection:
        await connection.send(request_bytes("GET", "/wait?name=left"))
        await call(function.port, "/ended")
    assert await ended(function, "left") < 1.0


async def test_caller_who_leaves_ends_the_stream(function: Process) -> None:
    """The generator behind server-sent events is closed, its ``finally`` included."""
    async with opened(function.port) as connection:
        await connection.send(request_bytes("GET", "/events?name=gone&count=100&pause=0.1"))
        await connection.head()
    assert await ended(function, "gone") < 1.0


async def test_caller_who_leaves_costs_no_place(function: Process) -> None:
    """A hundred callers who hang up leave nothing in flight."""
    for number in range(100):
        async with opened(function.port) as connection:
            await connection.send(request_bytes("GET", f"/wait?name=many-{number}"))
    await ended(function, "many-99")
    metrics = await call(function.metrics_port, "/metrics")
    assert "http_requests_in_flight 0.0" in metrics.text

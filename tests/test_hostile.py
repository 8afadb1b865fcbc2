"""Broken, oversized and slow requests are refused, cost little, and disturb nobody."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import anyio.to_thread
import pytest

from tests.child import Process
from tests.hostile import Attack, Corpus
from tests.processes import run_function
from tests.staging import FUNCTIONS, TEMPLATE
from tests.wire import Connection, WireError, call, opened, request_bytes

pytestmark = pytest.mark.anyio

REQUESTS = 2000
AT_A_TIME = 8
GROWTH_BYTES = 48 << 20

HANDLER = """
import asyncio

from fastapi import APIRouter, Request
from faasbase import Event, on_event
from pydantic import BaseModel

router = APIRouter()


class Order(BaseModel):
    item: str
    amount: int = 1


@router.get("/items/{number}")
async def item(number: int) -> dict[str, int]:
    return {"number": number}


@router.post("/orders")
async def order(order: Order) -> dict[str, int]:
    return {"total": 3 * order.amount}


@router.post("/upload")
async def upload(request: Request) -> dict[str, int]:
    return {"bytes": len(await request.body())}


@router.post("/unread", include_in_schema=False)
async def unread() -> None:
    await asyncio.sleep(1)


@on_event("order.created")
async def created(event: Event[Order]) -> None: ...
"""
SETTINGS = {"read_timeout": "800ms", "exec_timeout": "5s", "OPENFAAS_NAME": "hostile", "MAX_BODY_BYTES": "1000000"}


@pytest.fixture(scope="module")
async def function() -> AsyncIterator[Process]:
    """Run the function that is attacked."""
    async with run_function(HANDLER, **SETTINGS) as process:
        await process.ready()
        yield process


async def strike(process: Process, attack: Attack) -> str:
    """Make one attack and return what is wrong with the answer, if anything is."""
    async with opened(process.port) as connection:
        try:
            await connection.send(attack.data)
            if attack.half_closed:
                connection.writer.write_eof()
            answer = await connection.answer(method=attack.method, timeout_seconds=8)
        except (WireError, OSError) as error:
            return f"no answer to a valid request: {error!r}" if attack.answer else ""
        except TimeoutError:
            return "neither answer nor end"
    if attack.answer:
        return "" if (answer.status, answer.body) == attack.answer else f"wrong answer {answer}"
    ours = answer.status < 500 and b"Traceback" not in answer.body
    return "" if ours else f"answered {answer}"


async def test_two_thousand_requests_break_nothing() -> None:
    """No 5xx, no trace in answer or log, every valid one answered right, memory bounded; still serving afterwards."""
    attacks = Corpus(seed=2000).attacks(REQUESTS)
    wrong: list[str] = []

    async def striker(process: Process) -> None:
        for attack in attacks:
            if problem := await strike(process, attack):
                wrong.append(f"{attack.data[:200]!r}: {problem}")

    async with run_function(HANDLER, **SETTINGS) as process:
        await call(process.port, "/items/1")
        before = process.resident_bytes()
        await asyncio.gather(*(striker(process) for _ in range(AT_A_TIME)))
        assert (await call(process.port, "/items/1")).json() == {"number": 1}
        grown = process.resident_bytes() - before
        output = process.output()
    assert not wrong, f"{len(wrong)} wrong\n" + "\n".join(wrong[:10])
    assert "Traceback" not in output
    assert grown < GROWTH_BYTES, f"grew by {grown >> 20} MiB"


@pytest.mark.parametrize("chunked", [False, True], ids=["counted", "chunked"])
async def test_body_over_the_limit_is_refused(function: Process, chunked: bool) -> None:
    """413, at once where the length is announced, and at the limit where it is not."""
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


async def test_pipelined_requests_are_answered_in_order(function: Process) -> None:
    """Ten requests in one packet, ten answers."""
    async with opened(function.port) as connection:
        await connection.send(b"".join(request_bytes("GET", f"/items/{n}") for n in range(10)))
        answers = [await connection.answer() for _ in range(10)]
    assert [answer.json()["number"] for answer in answers] == list(range(10))


@pytest.mark.parametrize(
    "data",
    [
        b"POST /upload HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /upload HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\nabc",
    ],
    ids=["bad chunk", "two lengths", "length and chunks", "two encodings"],
)
async def test_ambiguous_framing_is_refused_and_closed(function: Process, data: bytes) -> None:
    """What two servers could read differently must not be read at all, nor what follows it."""
    smuggled = request_bytes("GET", "/items/666")
    async with opened(function.port) as connection:
        await connection.send(data + smuggled)
        rest = await asyncio.wait_for(connection.reader.read(), 5)
    assert rest.startswith(b"HTTP/1.1 400")
    assert b"666" not in rest


async def test_open_api_document_keeps_its_word() -> None:
    """Schemathesis finds no call of the attacked function that breaks its own document."""
    async with run_function(HANDLER, **SETTINGS) as process:
        await process.ready()
        await schemathesis(process)


@pytest.mark.parametrize("sample", sorted(FUNCTIONS.glob("*/handler.py")), ids=lambda path: path.parent.name)
async def test_samples_keep_their_word(sample: Path) -> None:
    """Schemathesis finds no call of a sample function that is answered 5xx or against its document."""
    async with run_function(sample.parent, **{**SETTINGS, "read_timeout": "5s"}) as process:
        await process.ready()
        await schemathesis(process)


async def test_template_keeps_its_word() -> None:
    """What ``faas-cli new`` hands out is a good example."""
    async with run_function(TEMPLATE / "function", **SETTINGS) as process:
        await process.ready()
        await schemathesis(process)


async def schemathesis(function: Process) -> None:
    """Run schemathesis against *function* with a fixed seed."""
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    command = [
        str(Path(sys.executable).with_name("schemathesis")),
        "run",
        f"{function.url}/openapi.json",
        f"--url={function.url}",
        f"--checks={checks}",
        "--max-examples=40",
        "--seed=1",
        "--workers=1",
    ]
    environ = {"PATH": os.environ["PATH"], "HOME": str(function.folder), "NO_COLOR": "1"}
    run = await anyio.to_thread.run_sync(
        lambda: subprocess.run(command, capture_output=True, text=True, timeout=90, env=environ, cwd=function.folder)
    )
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert '"exception"' not in function.output()

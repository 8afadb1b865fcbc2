"""Broken, oversized and slow requests are refused, cost little, and disturb nobody."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import anyio.to_thread
import pytest

from tests.child import Process
from tests.hostile import Attack, Corpus
from tests.processes import run_function
from tests.staging import FUNCTIONS, TEMPLATE
from tests.wire import WireError, call, opened, request_bytes

pytestmark = pytest.mark.anyio

REQUESTS = 2000
AT_A_TIME = 8
# Pools, parsers' caches and the allocator's slack; a leak of every body would be many times as much.
GROWTH_BYTES = 48 << 20

CALLED = sorted(path for path in FUNCTIONS.glob("*/handler.py") if "router = APIRouter()" in path.read_text())
"""The samples that take calls; others take events only."""
HANDLER = """
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
        except TimeoutError:
            return "neither answer nor end"
        except (WireError, OSError) as error:
            return f"no answer to a valid request: {error!r}" if attack.answer else ""
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


@pytest.mark.parametrize("sample", CALLED, ids=lambda path: path.parent.name)
async def test_samples_keep_their_word(sample: Path) -> None:
    """Schemathesis finds no call of a sample function that is answered 5xx or against its document."""
    places = {"IDEMPOTENCY_URL": "memory://", "PUBLISH_URL": "memory://events"}
    async with run_function(sample.parent, **{**SETTINGS, **places, "read_timeout": "5s"}) as process:
        await process.ready()
        await schemathesis(process)


async def test_template_keeps_its_word() -> None:
    """What ``faas-cli new`` hands out is a good example."""
    async with run_function(TEMPLATE / "function", **SETTINGS) as process:
        await process.ready()
        await schemathesis(process)


async def schemathesis(function: Process) -> None:
    """Run schemathesis against *function* with a fixed seed."""
    # What a handler may refuse is its own matter; that it crashes or answers something else than documented is ours.
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

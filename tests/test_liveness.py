"""A handler that blocks the event loop does not get its pod killed, loses no call, and is named."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from contextlib import AsyncExitStack

import pytest

from tests.child import Process
from tests.processes import run_function
from tests.wire import Answer, call, opened, request_bytes

pytestmark = pytest.mark.anyio

HANDLER = """
import time

from fastapi import APIRouter

router = APIRouter()


@router.get("/busy")
async def busy(seconds: float) -> str:
    return burn_the_loop(seconds)


@router.get("/quick")
async def quick() -> str:
    return "quick"


@router.get("/sleepy")
async def sleepy(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


def burn_the_loop(seconds: float) -> str:
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        number = (number * 31 + 7) % 1_000_003
    return "burnt"
"""


async def probes(function: Process, until: float) -> list[Answer]:
    """Probe health as the kubelet of OpenFaaS CE does, but more often; one second for each answer."""
    answers = []
    while time.monotonic() < until:
        answers.append(await call(function.port, "/_/health", timeout_seconds=1.0))
        await asyncio.sleep(0.25)
    return answers


async def blocked(function: Process, path: str, seconds: float) -> None:
    """Block the loop by a call of *path*, probe meanwhile, and make calls that have to wait."""
    # The idle connection belongs to the loop already, the new ones are taken by whoever accepts first.
    async with opened(function.port) as idle, asyncio.TaskGroup() as tasks:
        blocking = tasks.create_task(call(function.port, path, timeout_seconds=seconds + 5))
        await asyncio.sleep(0.1)
        waiting = [tasks.create_task(call(function.port, "/quick", timeout_seconds=seconds + 5)) for _ in range(20)]
        await idle.send(request_bytes("GET", "/quick"))
        probing = tasks.create_task(probes(function, time.monotonic() + seconds - 0.2))
        late = await idle.answer(timeout_seconds=seconds + 5)
    assert blocking.result().status == 200
    assert [answer.status for answer in (*[w.result() for w in waiting], late)] == [200] * 21
    assert {(a.status, a.body) for a in probing.result()} == {(200, b"OK")}
    assert len(probing.result()) > seconds


@pytest.mark.parametrize("path", ["/busy?seconds=4", "/sleepy?seconds=4"])
async def test_probes_are_answered_while_the_loop_is_blocked(path: str) -> None:
    """Neither pure Python nor a sleep in the wrong place stops the answers to the kubelet."""
    async with run_function(HANDLER) as function:
        await function.ready()
        await blocked(function, path, 4)


async def test_connections_that_say_nothing_do_not_stop_the_answers() -> None:
    """Silent, half and broken ones among the probes; whoever speaks at last is served when the loop is free."""
    async with run_function(HANDLER) as function, AsyncExitStack() as others:
        await function.ready()
        blocking = asyncio.create_task(call(function.port, "/busy?seconds=4"))
        await asyncio.sleep(1)
        silent = [await others.enter_async_context(opened(function.port)) for _ in range(20)]
        for connection in silent[:5]:
            await connection.send(b"GET /_/hea")
        for connection in silent[5:10]:
            connection.close()
        answer = await call(function.port, "/_/health", timeout_seconds=1.0)
        await silent[0].send(b"lth HTTP/1.1\r\nHost: h\r\n\r\n")
        completed = await silent[0].answer(timeout_seconds=1.0)
        assert (answer.status, completed.status, (await blocking).status) == (200, 200, 200)
        await silent[-1].send(request_bytes("GET", "/quick"))
        assert (await silent[-1].answer()).status == 200


async def test_log_names_the_frame_that_blocks() -> None:
    """The line is there while the loop is still blocked, with file, line and function."""
    async with run_function(HANDLER) as function, asyncio.TaskGroup() as tasks:
        await function.ready()
        tasks.create_task(call(function.port, "/busy?seconds=3"))
        line = await function.log_line("blocked", timeout_seconds=2.5)
        assert re.search(r"function/handler\.py:\d+ in burn_the_loop", line)


async def test_loop_blocked_for_thirty_seconds_fails_no_probe() -> None:
    """Half a minute is far beyond the six seconds after which OpenFaaS CE kills a pod."""
    async with run_function(HANDLER, exec_timeout="60s", write_timeout="60s", read_timeout="60s") as function:
        await function.ready()
        await blocked(function, "/busy?seconds=30", 30)


async def test_blocked_loop_after_sigterm_is_unhealthy() -> None:
    """The thread that answers for the loop knows of the signal too."""
    async with run_function(HANDLER) as function, asyncio.TaskGroup() as tasks:
        await function.ready()
        tasks.create_task(call(function.port, "/busy?seconds=3"))
        await asyncio.sleep(0.2)
        function.send_signal(signal.SIGTERM)
        await asyncio.sleep(1.0)
        assert (await call(function.port, "/_/health", timeout_seconds=1.0)).status == 503
        assert await function.exited() == 0

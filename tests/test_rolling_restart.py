"""Rolling restarts under load lose no call and no event."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack

import pytest

from tests.child import Process
from tests.load import Load, Replica, report
from tests.processes import run_function
from tests.wire import call, opened, request_bytes

pytestmark = pytest.mark.anyio

RESTARTS = 20
WINDOW_SECONDS = 1.0
# A caller that decides at the last moment may connect a little later; Kubernetes takes seconds here.
MARGIN_SECONDS = 0.05

WORK = """
import asyncio
import tempfile
from pathlib import Path

from fastapi import APIRouter, Request
from faasbase import Event, on_event

router = APIRouter()


@router.post("/work")
async def work(request: Request, seconds: float = 0) -> dict[str, int]:
    body = await request.body()
    await asyncio.sleep(seconds)
    return {"bytes": len(body)}


@on_event("order.created")
async def fulfil(event: Event[dict[str, float]]) -> None:
    await asyncio.sleep(event.data["seconds"])
    (Path(tempfile.gettempdir()) / f"{event.id}.done").touch()
"""
SETTINGS = {"healthcheck_interval": f"{WINDOW_SECONDS}s", "write_timeout": "10s"}


async def retire(process: Process, replica: Replica) -> None:
    """Send SIGTERM and route to the process until its window is over; it ends well."""
    replica.until = time.monotonic() + WINDOW_SECONDS - MARGIN_SECONDS
    process.send_signal(signal.SIGTERM)
    assert await process.exited() == 0, process.tail()


async def restart(load: Load, processes: AsyncExitStack) -> list[asyncio.Task[None]]:
    """Replace the one process *RESTARTS* times, each from the moment that its successor is healthy."""
    retiring: list[asyncio.Task[None]] = []
    old: tuple[Process, Replica] | None = None
    for number in range(RESTARTS + 1):
        # Healthy is enough: whoever calls during the boot waits and is answered.
        process = await processes.enter_async_context(run_function(WORK, **SETTINGS))
        replica = Replica(f"process {number}", process.port)
        load.replicas.append(replica)
        if old is not None:
            retiring.append(asyncio.create_task(retire(*old)))
            await asyncio.sleep(WINDOW_SECONDS)
        old = process, replica
    return retiring


@pytest.mark.timeout(180)
async def test_twenty_restarts_fail_no_call() -> None:
    """New and pooled connections, long and short calls: from the first healthy answer to the window's end."""
    load = Load(rate=200, seed=20)
    async with AsyncExitStack() as processes:
        async with load.running():
            retiring = await restart(load, processes)
        await asyncio.gather(*retiring)
    assert not load.failures, report(load.failures)
    assert load.done > RESTARTS * 200 * WINDOW_SECONDS
    assert load.pooled > load.done / 4


async def test_calls_of_the_first_moment_are_answered() -> None:
    """Connections that were made before anything is imported wait, and their calls are answered."""
    async with run_function(WORK, **SETTINGS) as function:
        answers = await asyncio.gather(*(call(function.port, "/work", method="POST", body=b"early") for _ in range(50)))
        assert {(a.status, a.text) for a in answers} == {(200, '{"bytes":5}')}


async def test_sigterm_during_start_ends_well() -> None:
    """A process that is stopped while it boots answers who waits, and exits with 0."""
    async with run_function(WORK, **SETTINGS) as function:
        waiting = asyncio.create_task(call(function.port, "/work", method="POST", body=b"early"))
        await asyncio.sleep(0.02)
        function.send_signal(signal.SIGTERM)
        assert (await waiting).status == 200
        assert await function.exited() == 0


async def test_idle_connection_is_open_for_the_whole_window() -> None:
    """A pooled connection still works late in the window, and its answer says that it was the last."""
    async with run_function(WORK, **SETTINGS) as function, opened(function.port) as connection:
        await function.ready()
        await connection.send(request_bytes("POST", "/work", body=b"x"))
        before = await connection.answer(method="POST")
        function.send_signal(signal.SIGTERM)
        await asyncio.sleep(WINDOW_SECONDS - 0.2)
        await connection.send(request_bytes("POST", "/work", body=b"x"))
        late = await connection.answer(method="POST")
        assert (before.status, before.header("connection")) == (200, None)
        assert (late.status, late.header("connection")) == (200, "close")
        assert await connection.reader.read() == b""
        assert await function.exited(timeout_seconds=3) == 0


async def test_event_longer_than_the_window_is_finished() -> None:
    """``write_timeout`` counts for events too: the handler runs to its end, and the sender learns of it."""
    event = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "order.created", "data": {"seconds": 2}}
    async with run_function(WORK, **SETTINGS) as function:
        await function.ready()
        push = asyncio.create_task(push_event(function, event))
        await asyncio.sleep(0.3)
        function.send_signal(signal.SIGTERM)
        assert 200 <= await push < 300
        assert (function.lock_file.parent / "e-1.done").exists()
        assert await function.exited() == 0


async def push_event(function: Process, event: Mapping[str, object]) -> int:
    """Push *event* as a structured CloudEvent and return the status."""
    headers = {"Content-Type": "application/cloudevents+json"}
    answer = await call(function.port, "/", method="POST", headers=headers, body=json.dumps(event).encode())
    return answer.status


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGINT"])
async def test_lifespan_ends_after_the_last_call(signal_name: str) -> None:
    """What the calls use is closed only when none of them needs it any more."""
    handler = """
import asyncio
from contextlib import asynccontextmanager

state = {"open": False}


@asynccontextmanager
async def lifespan(app):
    state["open"] = True
    yield
    state["open"] = False
    print("lifespan ended")


async def handle() -> bool:
    await asyncio.sleep(1)
    return state["open"]
"""
    async with run_function(handler, healthcheck_interval="200ms") as function:
        await function.ready()
        last = asyncio.create_task(call(function.port, "/"))
        await asyncio.sleep(0.1)
        function.send_signal(signal.Signals[signal_name])
        assert (await last).json() is True
        assert await function.exited() == 0
        assert "lifespan ended" in function.output()


async def test_call_that_would_outlive_the_pod_is_cut_in_time() -> None:
    """The exit comes before SIGKILL: what is left then is answered 503, which the queue worker sends again."""
    async with run_function(
        WORK, healthcheck_interval="500ms", write_timeout="60s", exec_timeout="60s", termination_grace_period="3s"
    ) as function:
        await function.ready()
        endless = asyncio.create_task(call(function.port, "/work?seconds=30", method="POST"))
        await asyncio.sleep(0.1)
        start = time.monotonic()
        function.send_signal(signal.SIGTERM)
        assert (await endless).status == 503
        assert await function.exited() == 0
        assert time.monotonic() - start < 3.0


async def test_second_interrupt_ends_the_waiting() -> None:
    """Ctrl-C twice is a developer who will not wait."""
    async with run_function(WORK, exec_timeout="60s", write_timeout="60s") as function:
        await function.ready()
        endless = asyncio.create_task(call(function.port, "/work?seconds=30", method="POST"))
        await asyncio.sleep(0.1)
        function.send_signal(signal.SIGINT)
        await asyncio.sleep(0.3)
        assert function.status is None
        function.send_signal(signal.SIGINT)
        assert (await endless).status == 503
        assert await function.exited(timeout_seconds=3) == 0

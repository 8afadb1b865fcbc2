"""Rolling restarts under load lose no call and no event."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack

import pytest
import websockets

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
import time
from pathlib import Path

from fastapi import APIRouter, Request, Response
from faasbase import Event, on_event

router = APIRouter()


@router.post("/block")
async def block(seconds: float) -> None:
    time.sleep(seconds)


@router.post("/thread")
def thread(seconds: float) -> None:
    time.sleep(seconds)


@router.get("/large")
async def large() -> Response:
    return Response(b"x" * 40_000_000)


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
            # A restart a second: the older ones are still finishing their long calls meanwhile.
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
    assert load.pooled > RESTARTS * 10
    assert len(load.too_late) < load.done / 100, report(load.too_late)


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
        await asyncio.sleep(WINDOW_SECONDS - 0.4)
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
        said = [line["message"] for line in function.logs() if line["message"].startswith("stopping")]
        assert said == ["stopping: calls are taken for another 0.2 s" if signal_name == "SIGTERM" else "stopping"]


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


@pytest.mark.parametrize("pooled", [False, True], ids=["new connections", "pooled connections"])
async def test_call_that_waits_at_the_end_of_the_window_is_answered(pooled: bool) -> None:
    """What was sent in the window counts as taken, though a busy loop has not come to read it."""
    async with AsyncExitStack() as stack:
        function = await stack.enter_async_context(run_function(WORK, **SETTINGS))
        await function.ready()
        idle = [await stack.enter_async_context(opened(function.port)) for _ in range(5 * pooled)]
        function.send_signal(signal.SIGTERM)
        await asyncio.sleep(WINDOW_SECONDS - 0.3)
        blocking = asyncio.create_task(call(function.port, "/block?seconds=0.5", method="POST"))
        await asyncio.sleep(0.1)
        late = idle or [await stack.enter_async_context(opened(function.port)) for _ in range(5)]
        for connection in late:
            await connection.send(request_bytes("POST", "/work"))
        answers = [await connection.answer(method="POST") for connection in late]
        assert [answer.status for answer in (await blocking, *answers)] == [200] * 6
        assert await function.exited() == 0


async def test_large_answer_is_delivered_before_the_exit() -> None:
    """A call is finished when its caller has the answer, not when the handler has returned."""
    async with run_function(WORK, healthcheck_interval="200ms") as function, opened(function.port) as connection:
        await function.ready()
        await connection.send(request_bytes("GET", "/large"))
        _, headers = await connection.head()
        function.send_signal(signal.SIGTERM)
        received = 0
        while received < int(dict(headers)["content-length"]):
            received += len(await connection.reader.readexactly(1_000_000))
            # Forty megabytes in more than a second, far longer than window and handler together.
            await asyncio.sleep(0.03)
        assert await function.exited() == 0


async def test_thread_that_goes_on_does_not_hold_the_exit() -> None:
    """A plain ``def`` cannot be cancelled: its caller is answered in time, and the process ends without it."""
    async with run_function(WORK, healthcheck_interval="200ms", exec_timeout="500ms") as function:
        await function.ready()
        answer = await call(function.port, "/thread?seconds=60", method="POST")
        assert (answer.status, answer.seconds < 1.5) == (504, True)
        start = time.monotonic()
        function.send_signal(signal.SIGTERM)
        assert await function.exited() == 0
        assert time.monotonic() - start < 5.0


async def test_open_websocket_does_not_hold_the_exit() -> None:
    """It has ``write_timeout`` like every call, and is closed then."""
    handler = """
from fastapi import APIRouter, WebSocket

router = APIRouter()


@router.websocket("/socket")
async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    async for text in websocket.iter_text():
        await websocket.send_text(text)
"""
    async with (
        run_function(handler, healthcheck_interval="300ms", write_timeout="1s") as function,
        websockets.connect(f"ws://127.0.0.1:{function.port}/socket") as socket,
    ):
        function.send_signal(signal.SIGTERM)
        await socket.send("still here")
        assert await socket.recv() == "still here"
        start = time.monotonic()
        with pytest.raises(websockets.ConnectionClosed):
            await asyncio.wait_for(socket.recv(), 5)
        assert await function.exited() == 0
        assert time.monotonic() - start < 3.0

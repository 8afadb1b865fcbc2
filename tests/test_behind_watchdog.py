"""The second shape: our process behind the real of-watchdog loses no call and no event either."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import nats
import pytest
import websockets

from deploy.brokers.nats import NatsServer
from tests.load import Load, Replica, report
from tests.test_rolling_restart import MARGIN_SECONDS, WORK, push_event
from tests.watchdog import run_behind_watchdog
from tests.wire import call

pytestmark = [pytest.mark.anyio, pytest.mark.tool("of-watchdog")]

WINDOW_SECONDS = 1.0
# The lock is ours: of-watchdog says that it is healthy only when our process listens.
SETTINGS = {"suppress_lock": "true", "healthcheck_interval": "1s", "write_timeout": "10s"}


async def test_no_call_fails_from_the_first_healthy_answer_to_the_windows_end() -> None:
    """During the boot, in steady state and after SIGTERM, at 200 calls a second."""
    load = Load(rate=200, seed=8)
    async with load.running(), run_behind_watchdog(WORK, **SETTINGS) as watchdog:
        replica = Replica("behind of-watchdog", watchdog.port)
        load.replicas.append(replica)
        await asyncio.sleep(3)
        replica.until = time.monotonic() + WINDOW_SECONDS - MARGIN_SECONDS
        watchdog.send_signal(signal.SIGTERM)
        assert await watchdog.exited() == 0
    assert not load.failures, report(load.failures)
    assert load.done > 600


async def test_event_longer_than_the_window_is_finished() -> None:
    """of-watchdog waits for HTTP calls only; a pushed event is one."""
    event = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "order.created", "data": {"seconds": 3}}
    async with run_behind_watchdog(WORK, **SETTINGS) as watchdog:
        push = asyncio.create_task(push_event(watchdog, event))
        await asyncio.sleep(1)
        watchdog.send_signal(signal.SIGTERM)
        assert 200 <= await push < 300
        assert await watchdog.exited() == 0
        assert (watchdog.lock_file.parent / "e-1.done").exists()


async def test_lock_goes_with_the_signal() -> None:
    """Health is 503 as soon as SIGTERM has come, though of-watchdog did not write the lock itself."""
    async with run_behind_watchdog(WORK, **SETTINGS) as watchdog:
        assert watchdog.lock_file.exists()
        watchdog.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        assert not watchdog.lock_file.exists()
        assert (await call(watchdog.port, "/_/health")).status == 503
        assert (await call(watchdog.port, "/work", method="POST")).status == 200


async def test_metrics_of_both_are_apart() -> None:
    """8081 is of-watchdog's; ours are on 8082."""
    async with run_behind_watchdog(WORK, **{**SETTINGS, "metrics_port": None}) as watchdog:
        await call(watchdog.port, "/work", method="POST")
        theirs = await call(8081, "/metrics")
        ours = await call(8082, "/metrics")
    assert 'http_requests_total{code="200",method="post"} 1\n' in theirs.text
    assert "go_goroutines" in theirs.text
    assert 'http_requests_total{code="200",method="post"} 1.0\n' in ours.text
    assert "faas_cold_start_seconds" in ours.text


async def test_handler_that_cannot_start_ends_both() -> None:
    """The line that says why comes through, and the exit status is not 0."""
    async with run_behind_watchdog("x = 1\n", **SETTINGS).unwaited() as watchdog:
        assert await watchdog.exited() == 1
        assert "start failed: function/handler.py" in watchdog.output()


async def test_websocket_goes_through() -> None:
    """of-watchdog upgrades, and so do we."""
    handler = """
from fastapi import APIRouter, WebSocket

router = APIRouter()


@router.websocket("/socket")
async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text((await websocket.receive_text()).upper())
"""
    async with (
        run_behind_watchdog(handler, **SETTINGS) as watchdog,
        websockets.connect(f"ws://127.0.0.1:{watchdog.port}/socket") as socket,
    ):
        await socket.send("hello")
        assert await socket.recv() == "HELLO"


async def test_long_log_line_comes_through() -> None:
    """With ``log_buffer_size=-1``, as the image sets it, 700 kB are a line like any other."""
    handler = (
        "import logging\n\n\nasync def handle() -> str:\n    logging.warning('y' * 700_000)\n    return 'logged'\n"
    )
    async with run_behind_watchdog(handler, **SETTINGS) as watchdog:
        assert (await call(watchdog.port, "/")).status == 200
        assert (await call(watchdog.port, "/")).status == 200
        line = await watchdog.log_line("y" * 700_000)
        assert json.loads(line)["level"] == "warning"


FETCHING = """
import asyncio

from faasbase import Event, on_event


@on_event("orders.work")
async def work(event: Event[float]) -> None:
    print("began", event.id, flush=True)
    await asyncio.sleep(event.data)
    print("ended", event.id, flush=True)
"""


async def test_fetched_event_longer_than_the_window_is_finished_too(nats_server: NatsServer) -> None:
    """of-watchdog knows nothing of it, and would end the process with the window, were there no call that it awaits."""
    async with streaming(nats_server) as publish:
        url = f"{nats_server.url}/WATCHED?durable=watched"
        async with run_behind_watchdog(FETCHING, **SETTINGS, EVENTS_URL=url) as watchdog:
            await publish(b"4")
            await watchdog.log_line("began")
            began = time.monotonic()
            watchdog.send_signal(signal.SIGTERM)
            assert await watchdog.exited() == 0
            assert 3 < time.monotonic() - began < 9
            assert "ended WATCHED/1" in watchdog.output()


@asynccontextmanager
async def streaming(server: NatsServer) -> AsyncIterator[Callable[[bytes], Awaitable[object]]]:
    """Make a stream and give what publishes to it."""
    client = await nats.connect(server.url, connect_timeout=5)
    try:
        stream = client.jetstream()
        await stream.add_stream(name="WATCHED", subjects=["orders.work"])
        yield lambda content: stream.publish("orders.work", content)
        await stream.delete_stream("WATCHED")
    finally:
        await client.close()

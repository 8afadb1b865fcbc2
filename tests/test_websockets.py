"""WebSockets: refused like any call when there are too many, and never outliving their client."""

from __future__ import annotations

import asyncio
import time

import pytest
import websockets

from tests.processes import run_function
from tests.wire import call

pytestmark = pytest.mark.anyio

HANDLER = """
import asyncio

from fastapi import APIRouter, WebSocket

router = APIRouter()
ended = []


@router.websocket("/clock")
async def clock(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        await asyncio.sleep(60)
    finally:
        ended.append("clock")


@router.websocket("/broken")
async def broken(websocket: WebSocket) -> None:
    await websocket.accept()
    raise RuntimeError("the reason is not for clients")


@router.get("/ended")
async def what_has_ended() -> list[str]:
    return ended
"""


async def test_handler_that_does_not_listen_ends_with_its_client() -> None:
    """It never receives, so it hears nothing of the end; its place is free again all the same."""
    async with run_function(HANDLER, max_inflight="1") as function:
        async with websockets.connect(f"ws://127.0.0.1:{function.port}/clock"):
            assert (await call(function.port, "/ended")).status == 429
        began = time.monotonic()
        while (await call(function.port, "/ended")).status == 429:
            assert time.monotonic() - began < 5
            await asyncio.sleep(0.1)
        assert (await call(function.port, "/ended")).json() == ["clock"]


async def test_one_too_many_is_told_so() -> None:
    """The handshake is answered as a call is: 429 with problem details."""
    async with run_function(HANDLER, max_inflight="1") as function:
        async with websockets.connect(f"ws://127.0.0.1:{function.port}/clock"):
            with pytest.raises(websockets.InvalidStatus) as refused:
                await websockets.connect(f"ws://127.0.0.1:{function.port}/clock")
        response = refused.value.response
        assert (response.status_code, response.headers["content-type"]) == (429, "application/problem+json")


async def test_crash_closes_it_and_tells_nothing() -> None:
    """1011 is "unexpected condition"; the log has the rest."""
    async with run_function(HANDLER) as function:
        async with websockets.connect(f"ws://127.0.0.1:{function.port}/broken") as socket:
            with pytest.raises(websockets.ConnectionClosedError) as closed:
                await socket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1011, "")
        await function.log_line("WEBSOCKET /broken failed")

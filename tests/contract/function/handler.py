"""A function with a path for each thing that a row of the contract asks of it."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

VERBS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
cancelled: list[str] = []


async def echo(request: Request) -> Response:
    """Answer with what arrived."""
    body = await request.body()
    return JSONResponse(
        {
            "method": request.method,
            "path": request.scope["path"].removeprefix(request.scope.get("root_path", "")),
            "query": request.url.query,
            "headers": dict(request.headers),
            "bytes": len(body),
            "text": body[:100].decode(errors="replace"),
        },
        headers={"X-Function": "contract"},
    )


async def sleep(request: Request) -> Response:
    """Answer after ``seconds``; note it when the caller or a timeout ends the wait."""
    try:
        await asyncio.sleep(float(request.query_params["seconds"]))
    except asyncio.CancelledError:
        cancelled.append(request.query_params.get("name", "?"))
        raise
    return PlainTextResponse("slept")


async def stream(request: Request) -> Response:
    """Send ``count`` pieces, ``pause`` seconds apart."""
    count, pause = int(request.query_params["count"]), float(request.query_params["pause"])

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(count):
            yield f"data: {number}\n\n".encode()
            await asyncio.sleep(pause)

    return StreamingResponse(pieces(), media_type="text/event-stream")


async def status(request: Request) -> Response:
    """Answer with the status in the path."""
    return PlainTextResponse("as asked", status_code=int(request.path_params["code"]))


async def log(request: Request) -> Response:
    """Print one line of ``bytes`` characters."""
    sys.stdout.write("x" * int(request.query_params["bytes"]) + "\n")
    sys.stdout.flush()
    return PlainTextResponse("logged")


async def die(request: Request) -> Response:
    """End the process with the status in the path."""
    os._exit(int(request.path_params["code"]))


async def readiness(request: Request) -> Response:
    """Answer 200 when the file ``ready`` stands in TMPDIR, else 503."""
    ready = (Path(os.environ["TMPDIR"]) / "ready").exists()
    return PlainTextResponse("ready" if ready else "not yet", status_code=200 if ready else 503)


async def noted(request: Request) -> Response:
    """Answer with the names of the calls that were cancelled."""
    return JSONResponse(cancelled)


async def repeat(socket: WebSocket) -> None:
    """Send back the first message."""
    await socket.accept()
    await socket.send_text(await socket.receive_text())
    await socket.close()


app = Starlette(
    routes=[
        Route("/sleep", sleep, methods=VERBS),
        Route("/stream", stream),
        Route("/status/{code}", status),
        Route("/log", log),
        Route("/die/{code}", die),
        Route("/readiness", readiness),
        Route("/cancelled", noted),
        WebSocketRoute("/socket", repeat),
        Route("/{path:path}", echo, methods=VERBS),
    ]
)

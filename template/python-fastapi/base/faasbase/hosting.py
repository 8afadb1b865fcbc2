"""uvicorn as this process uses it: configuration, sockets, lifespan; `serving.py` has the order of events."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from uvicorn.config import Config
from uvicorn.server import Server

from .errors import StartError
from .liveness import BACKLOG
from .protocol import FunctionProtocol
from .settings import Settings

# A mesh's proxy keeps idle connections for up to an hour; whoever closes first must not be us.
_KEEP_ALIVE_SECONDS = 3900
_LEFT_TASKS_SECONDS = 0.5


def event_loop() -> asyncio.AbstractEventLoop:
    """Return a uvloop loop, or asyncio's own where uvloop is not built."""
    try:
        import uvloop
    except ModuleNotFoundError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def run_loop(main: Coroutine[Any, Any, None]) -> None:
    """
    Run *main* on a loop of its own; unlike `asyncio.run`, wait for no thread at the end.

    A `def` that never returns would keep the process until it is killed, and its last spans with it.
    """
    loop = event_loop()
    try:
        loop.run_until_complete(main)
    finally:
        if left := asyncio.all_tasks(loop):
            for task in left:
                task.cancel()
            loop.run_until_complete(asyncio.wait(left, timeout=_LEFT_TASKS_SECONDS))
        loop.close()


def uvicorn_server(app: Any, settings: Settings, lifespan: str) -> Server:
    """Return a server for *app* that is not started; *lifespan* is ``auto`` or ``off``."""
    protocol = type(
        "Protocol",
        (FunctionProtocol,),
        {
            "read_timeout": settings.ahead_of_watchdog(settings.read_timeout),
            "write_timeout": settings.write_timeout,
            "max_header_bytes": settings.max_header_bytes,
        },
    )
    config = Config(
        app,
        http=protocol,
        ws=_websocket_protocol,  # type: ignore[arg-type]
        lifespan=lifespan,  # type: ignore[arg-type]
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
    )
    return Server(config)


def _websocket_protocol(**arguments: Any) -> Any:
    """Make the protocol of one WebSocket; its library is imported by the first one only."""
    from .websockets import FunctionWebSocket

    return FunctionWebSocket(**arguments)


def protocol_factory(server: Server) -> Callable[[], FunctionProtocol]:
    """Return what makes the protocol of one connection of *server*."""
    config, state = server.config, server.server_state
    return lambda: config.http_protocol_class(  # type: ignore[call-arg,return-value]
        config=config, server_state=state, app_state=server.lifespan.state
    )


@contextlib.contextmanager
def lifespan_errors_are_ours() -> Iterator[None]:
    """Keep uvicorn from logging what becomes the one line that the process ends with."""
    errors = logging.getLogger("uvicorn.error")
    errors.disabled = True
    try:
        yield
    finally:
        errors.disabled = False


async def start(server: Server, listener: socket.socket) -> None:
    """Run the app's start-up, then accept on *listener*; raises StartError where start-up failed."""
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    with lifespan_errors_are_ours():
        await server.lifespan.startup()
    if server.lifespan.should_exit:
        raise StartError("the function's lifespan failed at start-up")
    loop = asyncio.get_running_loop()
    server.servers = [await loop.create_server(protocol_factory(server), sock=listener, backlog=BACKLOG)]


async def close(server: Server) -> None:
    """Stop accepting, and close the connections that are idle."""
    for listening in server.servers:
        listening.close()
    for connection in list(server.server_state.connections):
        connection.shutdown()

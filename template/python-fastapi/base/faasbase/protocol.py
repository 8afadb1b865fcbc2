"""uvicorn's HTTP/1.1 protocol with what a public process needs on top: read deadline, header limit, cancellation."""

from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

from starlette.types import Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from .errors import Problem

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application


class AbortConnectionError(Exception):
    """Raised by the app to end a response that has begun and cannot be finished: the client must not think it whole."""


class FunctionProtocol(HttpToolsProtocol):
    """
    One connection.

    A request whose headers and body have not arrived within ``read_timeout`` is answered with 408, one with too large a
    head with 431, and a handler is cancelled when its client has gone.
    """

    read_timeout: float = 0.0
    write_timeout: float = 0.0
    max_header_bytes: int = 0

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._read_deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._unparsed_bytes = 0
        """Received since the parser last told of something: a header, or a trailer, that does not end."""
        self._broken = False
        self._handling: tuple[RequestResponseCycle, asyncio.Task[None]] | None = None

    @property
    def awaits_first_request(self) -> bool:
        """Whether the client has connected and not said anything that was answered or is being answered."""
        return self.cycle is None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._disarm_write()
        # uvicorn leaves it armed after a reset, and with it everything that the connection holds.
        self._unset_keepalive_if_required()
        handling = self._handling
        super().connection_lost(exc)
        if handling is not None and not handling[0].response_complete:
            handling[0].disconnected = True
            handling[1].cancel()

    def data_received(self, data: bytes) -> None:
        if self._broken:
            return
        self._unparsed_bytes += len(data)
        super().data_received(data)
        if self._unparsed_bytes > self.max_header_bytes:
            self._refuse(self._too_large())

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # 2.4: a send to a client that has gone is no error, and no response has to listen for its going, which would
        # take the request's body from a handler that still reads it.  This class cancels the handler instead.
        self.scope["asgi"]["spec_version"] = "2.4"
        self._head_bytes = self._unparsed_bytes = 0
        self._arm()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count_head(len(name) + len(value) + 4)

    def on_headers_complete(self) -> None:
        self._unparsed_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unparsed_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unparsed_bytes = 0
        self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._disarm_write()
        if self.transport.get_write_buffer_size():
            self._arm_write()
        if self._handling is not None:
            # What nobody has read of the request would stay for as long as the connection idles.  Not that of
            # `self.cycle`, which may be the next request: a client has all of an answer before the handler says so.
            self._handling[0].body = bytearray()
        super().on_response_complete()

    def handle_websocket_upgrade(self) -> None:
        self._disarm()
        self._disarm_write()
        if any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers):
            # The handshake would wait for a body that no handshake has.
            self._refuse(Problem(400, "a WebSocket handshake has no body"))
        else:
            super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed; called by uvicorn for every error that a callback raised as well."""
        too_large = self._head_bytes > self.max_header_bytes
        self._refuse(self._too_large() if too_large else Problem(400, "invalid HTTP request"))

    def _too_large(self) -> Problem:
        return Problem(431, f"request line and headers exceed {self.max_header_bytes} bytes")

    def _count_head(self, count: int) -> None:
        self._unparsed_bytes = 0
        self._head_bytes += count
        if self._head_bytes > self.max_header_bytes:
            raise ValueError("head too large")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        # A context of its own: what one request sets must not show in the next one of the connection.
        cancellable: Any = Cancellable(app, cycle)
        coroutine = cycle.run_asgi(cancellable)
        task = self.loop.create_task(coroutine, context=contextvars.Context())
        self._handling = (cycle, task)
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)
        if not self.transport.get_write_buffer_size():
            self._disarm_write()
        if self._write_deadline is None:
            self._arm_write()

    def _arm(self) -> None:
        self._disarm()
        self._read_deadline = self.loop.call_later(self.read_timeout, self._read_too_slow)

    def _disarm(self) -> None:
        if self._read_deadline is not None:
            self._read_deadline.cancel()
            self._read_deadline = None

    def _arm_write(self) -> None:
        self._write_deadline = self.loop.call_later(self.write_timeout, self._write_too_slow)

    def _disarm_write(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def _write_too_slow(self) -> None:
        """Give up on a client that does not read: its answer would stay in memory for as long as it likes."""
        self._write_deadline = None
        if self.transport.get_write_buffer_size():
            self.transport.abort()

    def _read_too_slow(self) -> None:
        if self.headers is None:
            self.transport.close()
        else:
            self._refuse(Problem(408, f"the request did not arrive within {self.read_timeout:g} s"))

    def _refuse(self, problem: Problem) -> None:
        if self.transport.is_closing():
            return
        self._broken = True
        handling = self._handling[0] if self._handling else None
        if handling is not None and handling.response_complete and handling.more_body:
            # Answered early: a second answer would be taken for that of the client's next call.
            self.transport.close()
            return
        if handling is not None and not handling.response_complete:
            if not handling.more_body:
                # What is wrong came behind a request that is whole: that one is answered, and then the connection ends.
                handling.keep_alive = False
                return
            if handling.response_started:
                self.transport.close()
                return
            # The handler still waits for the body; closing cancels it before it can answer as well.
            handling.disconnected = True
        self.transport.write(problem_response(problem))
        self.transport.close()


class Cancellable:
    """Keeps a handler's planned end from being reported as a crash by uvicorn."""

    def __init__(self, app: Any, cycle: Any) -> None:
        self._app = app
        self._cycle = cycle

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:
            if not self._cycle.disconnected:
                raise
        except AbortConnectionError:
            self._cycle.disconnected = True
            self._cycle.transport.abort()


def problem_response(problem: Problem) -> bytes:
    """Return *problem* as a whole HTTP/1.1 response, for when there is no app to answer."""
    body = problem.body()
    head = (
        f"HTTP/1.1 {problem.status} {problem.title}\r\ncontent-type: application/problem+json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body

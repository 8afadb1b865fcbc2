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
        self._head_bytes = 0
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
        handling = self._handling
        super().connection_lost(exc)
        if handling is not None and not handling[0].response_complete:
            handling[0].disconnected = True
            handling[1].cancel()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        # 2.4: a send to a client that has gone is no error, and no response has to listen for its going, which would
        # take the request's body from a handler that still reads it.  This class cancels the handler instead.
        self.scope["asgi"]["spec_version"] = "2.4"
        self._head_bytes = 0
        self._arm()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count_head(len(name) + len(value) + 4)

    def on_message_complete(self) -> None:
        self._disarm()
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self._disarm()
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed; called by uvicorn for every error that a callback raised as well."""
        if self._head_bytes > self.max_header_bytes:
            self._refuse(Problem(431, f"request line and headers exceed {self.max_header_bytes} bytes"))
        else:
            self._refuse(Problem(400, "invalid HTTP request"))

    def _count_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > self.max_header_bytes:
            raise ValueError("head too large")

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        transport: Any = _OneWrite(self.transport, self.loop)
        cycle.transport = transport
        # A context of its own: what one request sets must not show in the next one of the connection.
        cancellable: Any = _Cancellable(app, cycle)
        coroutine = cycle.run_asgi(cancellable)
        task = self.loop.create_task(coroutine, context=contextvars.Context())
        self._handling = (cycle, task)
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _arm(self) -> None:
        self._disarm()
        self._read_deadline = self.loop.call_later(self.read_timeout, self._read_too_slow)

    def _disarm(self) -> None:
        if self._read_deadline is not None:
            self._read_deadline.cancel()
            self._read_deadline = None

    def _read_too_slow(self) -> None:
        answered = self.cycle is not None and self.cycle.response_started
        if self.headers is None or answered:
            self.transport.close()
        else:
            self._refuse(Problem(408, f"the request did not arrive within {self.read_timeout:g} s"))

    def _refuse(self, problem: Problem) -> None:
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete:
            self.transport.write(problem_response(problem))
        elif not self.cycle.response_started:
            # The handler still waits for the body; closing cancels it before it can answer as well.
            self.cycle.disconnected = True
            self.transport.write(problem_response(problem))
        self.transport.close()


class _OneWrite:
    """
    Sends a response's head together with what follows in the same turn of the loop.

    uvicorn writes the two apart, and the second system call costs a small answer a tenth of its time.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head: bytes | None = None
        self._begun = False

    def write(self, data: bytes) -> None:
        if not self._begun:
            self._begun, self._head = True, data
            self._loop.call_soon(self._flush)
        elif self._head is not None:
            head, self._head = self._head, None
            self._transport.writelines((head, data))
        else:
            self._transport.write(data)

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def _flush(self) -> None:
        if self._head is not None:
            head, self._head = self._head, None
            self._transport.write(head)


class _Cancellable:
    """Keeps a handler's planned end from being reported as a crash by uvicorn."""

    def __init__(self, app: Any, cycle: RequestResponseCycle) -> None:
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
            self._cycle.transport.close()


def problem_response(problem: Problem) -> bytes:
    """Return *problem* as a whole HTTP/1.1 response, for when there is no app to answer."""
    body = problem.body()
    head = (
        f"HTTP/1.1 {problem.status} {problem.title}\r\ncontent-type: application/problem+json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body

"""of-watchdog's duties around the function's app: probes, limits, deadlines, headers, metrics and the access log."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.websockets import WebSocketDisconnect

from . import metrics
from .context import CallContext, call_id_of, enter_call
from .errors import PROBLEM_TYPE, Problem
from .lifecycle import Lifecycle
from .logs import AccessLog
from .protocol import AbortConnectionError
from .settings import Settings, parse_duration
from .tracing import TraceIds, continue_trace, current_trace, inject, with_traceparent

Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Any, Any], Awaitable[None]]
Ready = Callable[[], Any]

logger = logging.getLogger("faasbase")

REQUESTS = metrics.counter("http_requests", "Calls answered.", ("code", "method"))
DURATION = metrics.histogram("http_request_duration_seconds", "Seconds spent on calls.", ("code", "method"))
IN_FLIGHT = metrics.gauge("http_requests_in_flight", "Calls being handled.")

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"))
_STREAMS = (b"text/event-stream", b"application/x-ndjson")
_READY_SECONDS = 2.0
# nginx's number for a client that left; it never reaches anyone but metrics and logs.
_CLIENT_CLOSED = 499


class Watchdog:
    """
    The outermost ASGI app of the process.

    Every call gets a context with id and deadline; what goes wrong inside is logged here, once, and answered with problem
    details that hold a status, a reason and the id.
    """

    def __init__(
        self,
        app: App,
        settings: Settings,
        lifecycle: Lifecycle,
        ready: Ready | None = None,
        access_log: AccessLog | None = None,
    ) -> None:
        self._app = app
        self._settings = settings
        self._lifecycle = lifecycle
        self._ready = ready
        self._access_log = access_log
        IN_FLIGHT.read_from(lambda: lifecycle.inflight)
        self._sends: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["path"] in ("/_/health", "/_/ready"):
            await self._probe(scope, receive, send)
        else:
            await self._call(scope, receive, send)

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        http = scope["type"] == "http"
        headers = dict(scope["headers"])
        limit = self._time_limit(headers) if http else None
        deadline = time.monotonic() + limit if limit else None
        settings = self._settings
        call = CallContext(call_id_of(headers), deadline, settings.root_path, settings.propagate_headers, headers)
        enter_call(call)
        scope["headers"] = with_traceparent(scope["headers"])
        continue_trace(scope["headers"])
        self._enter_root_path(scope)
        exchange = _Exchange(
            send, call.call_id, self._lifecycle, host=headers.get(b"host"), callback=b"x-callback-url" in headers
        )
        self._lifecycle.inflight += 1
        try:
            await self._within_limits(scope, receive, exchange, limit)
        finally:
            self._lifecycle.inflight -= 1
            if http:
                self._account(scope, exchange)

    async def _within_limits(self, scope: Scope, receive: Receive, exchange: _Exchange, limit: float | None) -> None:
        timer = None
        try:
            self._refuse_excess(scope)
            if limit:
                timer = asyncio.get_running_loop().call_later(
                    limit, self._expire, exchange, limit, asyncio.current_task()
                )
            await self._app(scope, receive, exchange.send)
        except Problem as problem:
            await self._answer_problem(scope, exchange, problem)
        except asyncio.CancelledError:
            await self._cancelled(scope, exchange)
        except AbortConnectionError:
            raise
        except WebSocketDisconnect:
            exchange.left = True
        except Exception:
            what = scope.get("method", "WEBSOCKET")
            logger.exception("%s %s failed", what, scope["path"], extra=exchange.ids())
            await self._answer_problem(scope, exchange, Problem(500, "the function failed; see its log for this call"))
        finally:
            if timer is not None:
                timer.cancel()
        if exchange.unfinished and scope["type"] == "http":
            raise AbortConnectionError

    def _refuse_excess(self, scope: Scope) -> None:
        limit = self._settings.max_inflight
        if limit and self._lifecycle.inflight > limit:
            raise Problem(
                429,
                f"{limit} calls are being handled, the most at a time here (max_inflight)",
                retry_after_seconds=1,
                headers={"X-OpenFaaS-Internal": "faas-middleware"},
            )
        if scope["type"] == "http":
            for name, value in scope["headers"]:
                if name == b"content-length" and int(value) > self._settings.max_body_bytes:
                    raise Problem(413, f"the body exceeds {self._settings.max_body_bytes} bytes (MAX_BODY_BYTES)")

    def _time_limit(self, headers: dict[bytes, bytes]) -> float:
        """Return the seconds that the call may take; a stream lasts longer than `exec_timeout`, as with of-watchdog."""
        longest = self._settings.write_timeout
        if any(kind in headers.get(b"accept", b"").lower() for kind in _STREAMS):
            return longest
        limit = min(self._settings.exec_timeout or longest, longest)
        return min(limit, _shorter_timeout(headers.get(b"x-timeout")) or limit)

    def _expire(self, exchange: _Exchange, limit: float, task: asyncio.Task[None] | None) -> None:
        """Answer 504 and cancel the handler; the answer does not wait for it, since a `def` cannot be cancelled."""
        exchange.expired = True
        if not exchange.started:
            problem = Problem(504, f"no answer within {limit:g} s", headers={"X-OpenFaaS-Internal": "of-watchdog"})
            sending = asyncio.ensure_future(exchange.answer(problem))
            self._sends.add(sending)
            sending.add_done_callback(self._sends.discard)
        if task is not None:
            task.cancel()

    async def _cancelled(self, scope: Scope, exchange: _Exchange) -> None:
        if exchange.expired:
            text = "%s %s cancelled: no end within its time limit"
            logger.warning(text, scope["method"], scope["path"], extra=exchange.ids())
        elif self._lifecycle.stopping and not exchange.started:
            await self._answer_problem(scope, exchange, Problem(503, "the function is stopping", retry_after_seconds=1))
        else:
            exchange.left = True
            raise asyncio.CancelledError

    async def _answer_problem(self, scope: Scope, exchange: _Exchange, problem: Problem) -> None:
        if scope["type"] == "websocket":
            # Before it is accepted this refuses the handshake with 403; afterwards 1011 is "unexpected condition".
            await exchange.send_raw({"type": "websocket.close", "code": 1011})
        elif not exchange.started:
            await exchange.answer(problem)

    def _enter_root_path(self, scope: Scope) -> None:
        """Put the gateway's prefix back, in root_path and path both: a mount would be 404 with root_path alone."""
        prefix = self._settings.root_path
        if not prefix:
            return
        scope["root_path"] = prefix
        if not scope["path"].startswith(f"{prefix}/"):
            scope["path"] = prefix + scope["path"]
            if "raw_path" in scope:
                scope["raw_path"] = prefix.encode("utf-8") + scope["raw_path"]

    def _account(self, scope: Scope, exchange: _Exchange) -> None:
        status = _CLIENT_CLOSED if exchange.left else exchange.status or 500
        seconds = time.monotonic() - exchange.began
        code, method = str(status), scope["method"].lower() if scope["method"] in _METHODS else "unknown"
        REQUESTS.inc(trace=exchange.trace, code=code, method=method)
        DURATION.observe(seconds, trace=exchange.trace, code=code, method=method)
        if self._access_log is not None:
            path = scope["path"].removeprefix(self._settings.root_path)
            self._access_log.write(scope["method"], path, status, seconds, exchange.ids())

    async def _probe(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = _Exchange(send, "", self._lifecycle)
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["method"] != "GET":
            await exchange.answer(Problem(405, "probes are GET requests", headers={"Allow": "GET"}))
        elif not self._lifecycle.healthy:
            await exchange.answer(Problem(503, "not taking calls"))
        elif scope["path"] == "/_/health":
            await exchange.answer_text(200, b"OK")
        else:
            await self._readiness(scope, receive, exchange)

    async def _readiness(self, scope: Scope, receive: Receive, exchange: _Exchange) -> None:
        limit = self._settings.max_inflight
        if limit and self._lifecycle.inflight >= limit:
            await exchange.answer(Problem(429, f"{limit} calls are being handled, the most at a time"))
        elif not self._lifecycle.started or not await self._user_is_ready():
            await exchange.answer(Problem(503, "not ready"))
        elif self._settings.ready_path is not None:
            scope["path"], scope["raw_path"] = self._settings.ready_path, self._settings.ready_path.encode("utf-8")
            self._enter_root_path(scope)
            await self._within_limits(scope, receive, exchange, _READY_SECONDS)
        else:
            await exchange.answer_text(200, b"OK")

    async def _user_is_ready(self) -> bool:
        if self._ready is None:
            return True
        try:
            async with asyncio.timeout(_READY_SECONDS):
                if inspect.iscoroutinefunction(self._ready):
                    return bool(await self._ready())
                return bool(await asyncio.to_thread(self._ready))
        except Exception:
            logger.exception("ready() failed")
            return False


class _Exchange:
    """One call's answer on its way out: what has been sent of it, and the headers that every answer gets."""

    def __init__(
        self, send: Send, call_id: str, lifecycle: Lifecycle, *, host: bytes | None = None, callback: bool = False
    ) -> None:
        self.send_raw = send
        self.began = time.monotonic()
        self.started = self.ended = self.expired = self.left = False
        self.status = 0
        self.trace: TraceIds | None = None
        self._call_id = call_id
        self._lifecycle = lifecycle
        self._host = host
        self._callback = callback

    @property
    def unfinished(self) -> bool:
        """Whether the client has seen a beginning and would wait for, or believe in, an end."""
        return self.started and not self.ended

    async def send(self, message: Message) -> None:
        """Pass the app's *message* on; after a timeout has been answered there is nobody to send to."""
        if self.expired:
            return
        await self._send(message)

    def ids(self) -> dict[str, str]:
        """Return the ids as fields for log lines that are written after the call's span is over."""
        ids = {"call_id": self._call_id}
        if self.trace:
            ids["trace_id"], ids["span_id"] = self.trace.trace_id, self.trace.span_id
        return ids

    async def answer(self, problem: Problem) -> None:
        """Answer with *problem*, the call's id in it."""
        headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in problem.headers.items()]
        headers.append((b"content-type", PROBLEM_TYPE.encode("ascii")))
        await self._answer(problem.status, headers, problem.body(self._call_id))

    async def answer_text(self, status: int, body: bytes) -> None:
        """Answer with plain text."""
        await self._answer(status, [(b"content-type", b"text/plain; charset=utf-8")], body)

    async def _answer(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        headers.append((b"content-length", str(len(body)).encode("ascii")))
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self.started = True
            self.status = message["status"]
            # A snapshot: at the end of the call its span is over.
            self.trace = current_trace()
            message = {**message, "headers": self._headers(message)}
        elif kind == "http.response.body" and not message.get("more_body", False):
            self.ended = True
        await self.send_raw(message)

    def _headers(self, message: Message) -> list[tuple[bytes, bytes]]:
        headers = list(message.get("headers", ()))
        if 300 <= self.status < 400:
            headers = [(n, self._local(v) if n == b"location" else v) for n, v in headers]
        headers.append((b"x-duration-seconds", b"%.6f" % (time.monotonic() - self.began)))
        if self._call_id:
            headers.append((b"x-call-id", self._call_id.encode("ascii")))
        if self._lifecycle.stopping:
            # Clients with pooled connections move to another replica instead of meeting a closed one.
            headers.append((b"connection", b"close"))
        if self._callback:
            # The queue worker hands the function's response headers, and nothing else, to the callback's receiver.
            carrier: dict[str, str] = {}
            inject(carrier)
            headers.extend((name.encode("latin-1"), value.encode("latin-1")) for name, value in carrier.items())
        return headers

    def _local(self, location: bytes) -> bytes:
        """Make a redirect to this function relative: only the caller knows its scheme and the gateway's host."""
        scheme, found, rest = location.partition(b"://")
        host, _, path = rest.partition(b"/")
        return b"/" + path if found and host == self._host and scheme in (b"http", b"https") else location


def _shorter_timeout(value: bytes | None) -> float | None:
    """Read ``X-Timeout``; zero and less are ignored, where of-watchdog would let a caller switch the limit off."""
    if not value or len(value) > 32:
        return None
    try:
        seconds = parse_duration(value.decode("latin-1"))
    except ValueError:
        return None
    return seconds if seconds > 0 else None

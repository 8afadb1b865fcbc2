"""of-watchdog's duties around the function's app: probes, limits, deadlines, headers, metrics and the access log."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.middleware.body_limit import RequestBodyLimitMiddleware
from starlette.requests import ClientDisconnect
from starlette.websockets import WebSocketDisconnect

from . import metrics
from .addresses import enter_public_host, enter_root_path
from .answering import CRASH, REFUSAL, refuse
from .context import CallContext, call_id_of, enter_call, leave_call
from .durations import parse_duration
from .errors import Problem
from .exchange import Exchange, Message, Send
from .failures import handled_failure
from .holding import HeldCall
from .lifecycle import Lifecycle
from .logs import AccessLog
from .probes import PROBES, Probes, Ready
from .protocol import AbortConnectionError
from .settings import Settings
from .trace_headers import with_traceparent
from .tracing import EXCHANGE, PROBE_SCHEME, continue_trace, instrument

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
App = Callable[[Any, Any, Any], Awaitable[None]]

logger = logging.getLogger("faasbase")

REQUESTS = metrics.counter("http_requests", "Calls answered.", ("code", "method"))
DURATION = metrics.histogram("http_request_duration_seconds", "Seconds spent on calls.", ("code", "method"))
IN_FLIGHT = metrics.gauge("http_requests_in_flight", "Calls being handled.")

_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE"))
# nginx's number for a client that left; it never reaches anyone but metrics and logs.
_CLIENT_CLOSED = 499


class Watchdog:
    """
    The outermost ASGI app of the process.

    Every call gets a context with id and deadline; what goes wrong inside is logged here, once, and answered with
    problem details that hold a status, a reason and the id.
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
        # Only a body of unknown length has to be counted while it comes; one that is announced is refused at once.
        self._bounded: App = RequestBodyLimitMiddleware(app, settings.max_body_bytes)
        self._refusing: App = instrument(refuse)
        self._settings = settings
        self._lifecycle = lifecycle
        self._probes = Probes(settings, lifecycle, ready, self._ask)
        self._access_log = access_log
        IN_FLIGHT.read_from(lambda: lifecycle.inflight)
        self._sends: set[asyncio.Task[None]] = set()
        self.held_call: HeldCall | None = None
        """What keeps of-watchdog waiting at the end."""
        self.lifespan_error: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope["path"] in PROBES:
            await self._probes.answer(scope, receive, send)
        elif self.held_call is not None and scope["path"] == self.held_call.path:
            await self.held_call.answer(scope, receive, send)
        else:
            await self._call(scope, receive, send)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except Exception as exc:
            # uvicorn keeps only the text of what went wrong.
            self.lifespan_error = exc
            raise

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        http = scope["type"] == "http"
        headers = dict(scope["headers"])
        limit = self._time_limit(headers) if http else None
        deadline = time.monotonic() + limit if limit else None
        settings = self._settings
        call = CallContext(call_id_of(headers), deadline, settings.root_path, settings.propagate_headers, headers)
        token = enter_call(call)
        scope["headers"] = with_traceparent(scope["headers"])
        continue_trace(scope["headers"])
        enter_root_path(scope, settings.root_path)
        if b"x-forwarded-host" in headers or b"x-forwarded-proto" in headers:
            enter_public_host(scope, call)
        exchange = Exchange(
            send,
            call.call_id,
            self._lifecycle,
            headers=headers,
            host=call.host,
            scheme=call.forwarded_scheme,
            answer_headers=call.answer_headers,
            websocket=not http,
        )
        scope[EXCHANGE] = exchange
        self._lifecycle.inflight += 1
        try:
            await self._within_limits(scope, receive, exchange, limit)
        finally:
            self._lifecycle.inflight -= 1
            exchange.settle()
            if http:
                self._account(scope, exchange)
            leave_call(token)

    async def _ask(self, scope: Scope, receive: Receive, exchange: Exchange, limit: float) -> None:
        """Call the function for a probe, whose answer is the function's own."""
        enter_root_path(scope, self._settings.root_path)
        scope["scheme"] = PROBE_SCHEME
        await self._within_limits(scope, receive, exchange, limit)

    async def _within_limits(self, scope: Scope, receive: Receive, exchange: Exchange, limit: float | None) -> None:
        timer = self._timer(exchange, limit)
        try:
            await self._app_for(scope, exchange)(scope, receive, exchange.send)
        except Problem as problem:
            await exchange.answer(problem)
        except asyncio.CancelledError:
            await self._cancelled(scope, exchange)
        except AbortConnectionError:
            raise
        except (ClientDisconnect, WebSocketDisconnect):
            exchange.left = True
        except (Exception, SystemExit):  # noqa: BLE001 - the border: logged here, once, with the call's ids
            await self._crashed(scope, exchange)
        finally:
            if timer is not None:
                timer.cancel()
        if exchange.unfinished and scope["type"] == "http":
            raise AbortConnectionError

    def _timer(self, exchange: Exchange, limit: float | None) -> asyncio.TimerHandle | None:
        if not limit:
            return None
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        timer = loop.call_later(limit, self._expire, exchange, limit, task)
        # The limit is the answer's: what a function does in the background behind it has its own time.
        exchange.on_end = timer.cancel
        return timer

    def _app_for(self, scope: Scope, exchange: Exchange) -> App:
        """Return the function's app, or one that refuses: that makes a SERVER span as well."""
        problem = self._excess(exchange)
        if problem is None:
            return self._bounded if b"transfer-encoding" in exchange.headers else self._app
        scope[REFUSAL] = exchange.messages(problem)
        return self._refusing

    def _excess(self, exchange: Exchange) -> Problem | None:
        limit = self._settings.max_inflight
        if limit and self._lifecycle.inflight > limit:
            return Problem(
                429,
                f"{limit} calls are being handled, the most at a time here (max_inflight)",
                retry_after_seconds=1,
                headers={"X-OpenFaaS-Internal": "faas-middleware"},
            )
        largest = self._settings.max_body_bytes
        if int(exchange.headers.get(b"content-length", b"0")) > largest:
            return Problem(413, f"the body exceeds {largest} bytes (MAX_BODY_BYTES)")
        return None

    def _time_limit(self, headers: dict[bytes, bytes]) -> float:
        """Return the seconds that the call may take; a stream lasts longer than `exec_timeout`, as with of-watchdog."""
        longest = self._settings.write_timeout
        accept = headers.get(b"accept", b"").lower()
        if b"text/event-stream" in accept or b"application/x-ndjson" in accept:
            return longest
        limit = min(self._settings.exec_timeout or longest, longest)
        return self._settings.ahead_of_watchdog(min(limit, _shorter_timeout(headers.get(b"x-timeout")) or limit))

    def _expire(self, exchange: Exchange, limit: float, task: asyncio.Task[None] | None) -> None:
        """Answer 504 and cancel the handler; the answer does not wait for it, since a `def` cannot be cancelled."""
        exchange.expired = True
        problem = Problem(504, f"no answer within {limit:g} s", headers={"X-OpenFaaS-Internal": "of-watchdog"})
        sending = asyncio.ensure_future(exchange.expire(problem))
        self._sends.add(sending)
        sending.add_done_callback(self._sends.discard)
        if task is not None:
            task.cancel()

    async def _cancelled(self, scope: Scope, exchange: Exchange) -> None:
        task = asyncio.current_task()
        if exchange.expired:
            logger.warning("%s gave no answer within its time limit", self._name(scope), extra=exchange.ids())
        elif task is not None and not task.cancelling():
            # Nobody has cancelled anything here: the handler raised it.
            await self._crashed(scope, exchange)
        elif self._lifecycle.stopping and scope["type"] == "http":
            # An answer that has begun is cut by the caller of this, since it cannot be finished.
            await exchange.answer(Problem(503, "the function is stopping", retry_after_seconds=1))
        else:
            exchange.left = True
            raise asyncio.CancelledError

    async def _crashed(self, scope: Scope, exchange: Exchange) -> None:
        """Log the exception being handled, once and in full, and tell the caller no more than the id."""
        logger.error("%s failed", self._name(scope), exc_info=handled_failure(), extra=exchange.ids())
        await exchange.answer(CRASH)

    def _path(self, scope: Scope) -> str:
        """Return the path as the function's caller wrote it."""
        return str(scope["path"]).removeprefix(self._settings.root_path)

    def _name(self, scope: Scope) -> str:
        return f"{scope.get('method', 'WEBSOCKET')} {self._path(scope)}"

    def _account(self, scope: Scope, exchange: Exchange) -> None:
        status = _CLIENT_CLOSED if exchange.left else exchange.status or 500
        seconds = exchange.seconds or time.monotonic() - exchange.began
        code = str(status)
        method = scope["method"].lower() if scope["method"] in _METHODS else "unknown"
        REQUESTS.inc(trace=exchange.trace, code=code, method=method)
        DURATION.observe(seconds, trace=exchange.trace, code=code, method=method)
        if self._access_log is not None:
            self._access_log.write(scope["method"], self._path(scope), status, seconds, exchange.ids())


def _shorter_timeout(value: bytes | None) -> float | None:
    """Read ``X-Timeout``, a Go duration; zero and less are ignored: of-watchdog lets a caller switch the limit off."""
    if not value or len(value) > 32 or value.isdigit():
        return None
    try:
        seconds = parse_duration(value.decode("latin-1"))
    except ValueError:
        return None
    return seconds if seconds > 0 else None

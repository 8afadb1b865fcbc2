"""One call's answer on its way out, with what every answer carries: duration, ids, and a redirect that fits."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

from .errors import PROBLEM_TYPE, Problem
from .lifecycle import Lifecycle
from .tracing import TraceIds, current_trace, inject

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]


class Exchange:
    """One call's answer on its way out: what has been sent of it, and the headers that every answer gets."""

    def __init__(
        self,
        send: Send,
        call_id: str,
        lifecycle: Lifecycle,
        *,
        host: bytes | None = None,
        callback: bool = False,
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

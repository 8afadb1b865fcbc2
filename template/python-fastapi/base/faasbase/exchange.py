"""One call's answer on its way out, with what every answer carries: duration, ids, and a redirect that fits."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from opentelemetry.trace import Span, StatusCode

from .errors import PROBLEM_TYPE, Problem
from .lifecycle import Lifecycle
from .tracing import TraceIds, current_trace, ids_of, inject

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]

_OURS = (b"x-duration-seconds", b"x-call-id")


class Exchange:
    """One call's answer on its way out: what has been sent of it, and the headers that every answer gets."""

    def __init__(
        self,
        send: Send,
        call_id: str,
        lifecycle: Lifecycle,
        *,
        headers: Mapping[bytes, bytes] | None = None,
        host: bytes | None = None,
        scheme: bytes = b"",
        answer_headers: Sequence[tuple[bytes, bytes]] = (),
        websocket: bool = False,
    ) -> None:
        self.headers = headers or {}
        """The request's, names in lower case."""
        self.answer_headers = answer_headers
        """What has been added to the answer's headers by the time it begins."""
        self.began = time.monotonic()
        self.seconds: float | None = None
        """How long the answer took, once it has ended; work in the background may go on behind it."""
        self.started = self.ended = self.expired = self.left = False
        self.status = 0
        self.trace: TraceIds | None = None
        self.on_end: Callable[[], None] | None = None
        self.on_failure: list[Callable[[], None]] = []
        """What is to be undone where the caller cannot take the call for done, and will repeat it."""
        self._send_raw = send
        self._span: Span | None = None
        self._call_id = call_id
        self._lifecycle = lifecycle
        self._host = host
        self._schemes = (scheme,) if scheme else (b"http", b"https")
        self._callback = b"x-callback-url" in self.headers
        self._kind = "websocket.http.response" if websocket else "http.response"
        self._accepted = self._closed = False

    @property
    def unfinished(self) -> bool:
        """Whether the client has seen a beginning and would wait for, or believe in, an end."""
        return self.started and not self.ended

    def settle(self) -> None:
        """Undo what must not outlast a call that has failed; whoever gave up waiting repeats it as well."""
        if self._accepted:
            # A WebSocket that was open has no status, and nobody repeats its handshake however it was closed.
            return
        if self.on_failure and (self.left or self.expired or not 200 <= self.status < 500 or self.status == 429):
            for undo in self.on_failure:
                undo()

    def enter_span(self, span: Span) -> None:
        """Take note of the call's SERVER span, which is over before the last log line of the call is written."""
        self._span, self.trace = span, ids_of(span)

    def ids(self) -> dict[str, str]:
        """Return the ids as fields for log lines that are written after the call's span is over."""
        ids = {"call_id": self._call_id}
        if self.trace:
            ids["trace_id"], ids["span_id"] = self.trace.trace_id, self.trace.span_id
        return ids

    async def send(self, message: Message) -> None:
        """Pass the app's *message* on; after a timeout has been answered there is nobody to send to."""
        if not self.expired:
            await self._send(message)

    async def answer(self, problem: Problem) -> None:
        """Answer with *problem*, the call's id in it, unless an answer has begun; close an accepted WebSocket."""
        if self._closed:
            return
        if self._accepted:
            # 1011 is "unexpected condition".
            await self._send({"type": "websocket.close", "code": 1011})
        elif not self.started:
            for message in self.messages(problem):
                await self._send(message)

    async def expire(self, problem: Problem) -> None:
        """Answer with *problem* while the app still runs, and let its span tell what the caller was told."""
        self.fail_span(problem)
        await self.answer(problem)

    def fail_span(self, problem: Problem) -> None:
        """Let the call's span, which must not be over, tell that the caller is answered with *problem*."""
        if self._span is not None:
            self._span.set_attribute("http.response.status_code", problem.status)
            self._span.set_status(StatusCode.ERROR, problem.detail)

    async def answer_text(self, status: int, body: bytes) -> None:
        """Answer with plain text."""
        for message in self._messages(status, [(b"content-type", b"text/plain; charset=utf-8")], body):
            await self._send(message)

    def messages(self, problem: Problem) -> tuple[Message, Message]:
        """Return *problem* as the two messages of ASGI."""
        given = problem.headers.items()
        headers = [
            (name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in given
        ]
        headers.append((b"content-type", PROBLEM_TYPE.encode("ascii")))
        return self._messages(problem.status, headers, problem.body(self._call_id))

    def _messages(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> tuple[Message, Message]:
        headers.append((b"content-length", str(len(body)).encode("ascii")))
        start = {"type": f"{self._kind}.start", "status": status, "headers": headers}
        return start, {"type": f"{self._kind}.body", "body": body}

    async def _send(self, message: Message) -> None:
        kind = message["type"]
        if kind.endswith("http.response.start"):
            _check(message)
            self.started = True
            self.status = message["status"]
            self.trace = self.trace or current_trace()
            message = {**message, "headers": self._headers(message)}
        elif kind.endswith("http.response.body") and not message.get("more_body", False):
            self._end()
        elif kind == "websocket.accept":
            self._accepted = True
        elif kind == "websocket.close":
            self._closed = True
        await self._send_raw(message)

    def _end(self) -> None:
        self.ended = True
        self.seconds = time.monotonic() - self.began
        if self.on_end is not None:
            self.on_end()

    def _headers(self, message: Message) -> list[tuple[bytes, bytes]]:
        headers = [header for header in message.get("headers", ()) if header[0].lower() not in _OURS]
        if 300 <= self.status < 400:
            headers = [(n, self._local(v) if n == b"location" else v) for n, v in headers]
        headers.extend(self.answer_headers)
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
        # Where the caller's scheme is known, a redirect to the other one is what it says.
        ours = found and host == self._host and scheme in self._schemes
        # A path that begins with two slashes would be another host's.
        return b"/" + path.lstrip(b"/") if ours else location


def _encoded(text: str) -> bytes:
    return text.encode("latin-1", "replace")


def _check(message: Message) -> None:
    """
    Refuse what no client could read, before anything of the answer has begun.

    Raises:
        ValueError: The status is none, or a header has a line break in it.
    """
    if not 100 <= message["status"] <= 599:
        raise ValueError(f"{message['status']} is no HTTP status")
    for name, value in message.get("headers", ()):
        if b"\n" in value or b"\r" in value or b"\0" in value or b"\n" in name or b" " in name:
            raise ValueError(f"the response header {name!r} has characters that no header may have")

"""A real OTLP/HTTP receiver: decodes what exporters send and keeps the spans."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan

Value = str | bool | int | float | list[object] | None
MAX_BODY_BYTES = 16 << 20


@dataclass(frozen=True)
class Event:
    """Something that happened in a span, such as an exception."""

    name: str
    attributes: dict[str, Value]


@dataclass(frozen=True)
class Span:
    """A span as the sink received it; ids are lower-case hexadecimal, times Unix seconds."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start: float
    end: float
    status: str
    attributes: dict[str, Value]
    resource: dict[str, Value]
    events: tuple[Event, ...]


@dataclass
class OtlpSink:
    """The spans received so far, and everything received as text, for tests that look for secrets in it."""

    url: str
    spans: list[Span] = field(default_factory=list)
    raw: list[str] = field(default_factory=list)

    def wait_for(self, wanted: Callable[[list[Span]], bool], *, timeout_seconds: float = 10.0) -> list[Span]:
        """Wait until *wanted* is true of the spans and return them."""
        deadline = time.monotonic() + timeout_seconds
        while not wanted(self.spans):
            if time.monotonic() > deadline:
                raise AssertionError(f"not received in {timeout_seconds} s: {self.spans}")
            time.sleep(0.02)
        return list(self.spans)

    def of_kind(self, kind: str) -> list[Span]:
        """Return the spans of *kind*: ``SERVER``, ``CLIENT``, ``INTERNAL``, ``PRODUCER`` or ``CONSUMER``."""
        return [span for span in self.spans if span.kind == kind]

    def receive(self, body: bytes) -> None:
        """Decode one export and keep its spans."""
        request = ExportTraceServiceRequest.FromString(body)
        self.raw.append(str(request))
        for resource in request.resource_spans:
            attributes = _attributes(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_span(span, attributes) for span in scope.spans]


@contextmanager
def otlp_sink() -> Iterator[OtlpSink]:
    """Receive spans at ``.url`` (the value of ``OTEL_EXPORTER_OTLP_ENDPOINT``) while the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Receiver)
    sink = OtlpSink(f"http://127.0.0.1:{server.server_port}")
    _Receiver.sinks[server.server_port] = sink
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield sink
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5.0)
        del _Receiver.sinks[server.server_port]


class _Receiver(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10
    sinks: dict[int, OtlpSink] = {}  # noqa: RUF012  # by port: the server makes a receiver for each call

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = self.rfile.read(min(length, MAX_BODY_BYTES))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        # Anything else would be an exporter with other settings than the ones documented.
        known = self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
        if known:
            self.sinks[self.connection.getsockname()[1]].receive(body)
        self.send_response(200 if known else 404)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing: the test's output is for the function's."""


def _span(span: ProtoSpan, resource: dict[str, Value]) -> Span:
    return Span(
        name=span.name,
        kind=ProtoSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start=span.start_time_unix_nano / 1e9,
        end=span.end_time_unix_nano / 1e9,
        status=("UNSET", "OK", "ERROR")[span.status.code],
        attributes=_attributes(span.attributes),
        resource=resource,
        events=tuple(Event(event.name, _attributes(event.attributes)) for event in span.events),
    )


def _attributes(pairs: object) -> dict[str, Value]:
    return {pair.key: _value(pair.value) for pair in pairs if isinstance(pair, KeyValue)}  # type: ignore[attr-defined]


def _value(value: AnyValue) -> Value:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return None if kind is None else getattr(value, kind)

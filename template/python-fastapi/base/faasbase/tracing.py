"""
Traces: spans of the users' own, and trace context carried from callers to callees.

The OpenTelemetry SDK is imported only where an OTLP endpoint is set (`export.py`).  Without one no span is made, and
the caller's context still passes through to calls, events and logs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, Tracer, TracerProvider

from .context import current_call

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Scope

Headers = Sequence[tuple[bytes, bytes]]
AttributeValue = str | bool | int | float | Sequence[str] | Sequence[int] | Sequence[float]

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_B3_TRACE = re.compile(rb"(?:[0-9a-f]{16}){1,2}")
_B3_SPAN = re.compile(rb"[0-9a-f]{16}")

EXCHANGE = "faasbase.exchange"
"""Key of the scope under which the call's `Exchange` waits for its SERVER span."""
PROBE_SCHEME = "probe"
"""What a probe's scope has for its scheme, so that contrib's filter of URLs can tell it; no client can write that."""

_provider: TracerProvider | None = None
_tracer: Tracer | None = None
_cold = True


@dataclass(frozen=True, slots=True)
class TraceIds:
    """The ids of the current span, in hexadecimal as logs and exemplars show them."""

    trace_id: str
    span_id: str
    sampled: bool


def use_provider(provider: TracerProvider | None) -> None:
    """Make spans with *provider* from now on; None makes none."""
    global _provider, _tracer
    _provider = provider
    _tracer = provider.get_tracer("faasbase") if provider else None


def tracing_on() -> bool:
    """Tell whether spans are made at all, for those who ask for thousands a second."""
    return _tracer is not None


@contextmanager
def span(name: str, /, **attributes: AttributeValue) -> Iterator[Span]:
    """
    Trace the body of a ``with`` block as a span called *name*; an exception marks it failed and goes on.

    Dotted attribute names are given as ``**{"order.id": 7}``.  Costs next to nothing where tracing is off.
    """
    with _started(name, SpanKind.INTERNAL, attributes) as current:
        yield current


@contextmanager
def client_span(name: str, /, **attributes: AttributeValue) -> Iterator[Span]:
    """Trace the body as a call to another system, as `span` does; attributes by the semantic conventions."""
    with _started(name, SpanKind.CLIENT, attributes) as current:
        yield current


@contextmanager
def _started(name: str, kind: SpanKind, attributes: Mapping[str, AttributeValue]) -> Iterator[Span]:
    if _tracer is None:
        yield trace.INVALID_SPAN
        return
    with _tracer.start_as_current_span(name, kind=kind, attributes=attributes) as current:
        yield current


def current_trace() -> TraceIds | None:
    """Return the ids of the span being in, of this process or of the caller; None outside any trace."""
    return ids_of(trace.get_current_span())


def ids_of(span: Span) -> TraceIds | None:
    """Return the ids of *span*; None where it is no real one."""
    ids = span.get_span_context()
    if not ids.is_valid:
        return None
    return TraceIds(f"{ids.trace_id:032x}", f"{ids.span_id:016x}", ids.trace_flags.sampled)


def inject(carrier: MutableMapping[str, str]) -> None:
    """Write the current trace context into *carrier*, W3C headers by name."""
    propagate.inject(carrier)


def continue_trace(headers: Headers) -> None:
    """Make the caller's context current where no SERVER span will do it, so that logs and calls go on with it."""
    if _tracer is None and any(name == b"traceparent" for name, _ in headers):
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        otel_context.attach(propagate.extract(carrier))


def with_traceparent(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """
    Return *headers* with the caller's trace context as one W3C ``traceparent``, however the caller wrote it.

    Known are W3C, B3 in one header or several, and the Kafka connector's ``X-Kafka-Traceparent``, in this order.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _CONTEXT_HEADERS:
            found.setdefault(name, value)
    if not found or _TRACEPARENT.fullmatch(found.get(b"traceparent", b"")):
        return headers
    parent = _from_kafka(found) or _from_b3(found)
    kept = [header for header in headers if header[0] != b"traceparent"]
    if parent is None:
        return kept
    state = found.get(b"x-kafka-tracestate")
    return [*kept, (b"traceparent", parent), *([(b"tracestate", state)] if state else [])]


def instrument(app: ASGIApp) -> ASGIApp:
    """
    Return *app* so that each of its requests makes exactly one SERVER span; the only place that decides who makes it.

    Probes, which ask the function for ``ready_path``, make none.

    FastAPI has telemetry of its own that stands down only where contrib's middleware is inside the app's own stack, so
    a FastAPI app is instrumented in place and any other ASGI app is wrapped.
    """
    if _provider is None:
        return app
    from .export import instrument_asgi

    return instrument_asgi(app, _provider, _describe, f"^{PROBE_SCHEME}://")


def _describe(server_span: Span, scope: Scope) -> None:
    global _cold
    if exchange := scope.get(EXCHANGE):
        exchange.enter_span(server_span)
    if not server_span.is_recording():
        return
    server_span.set_attribute("faas.trigger", "http")
    server_span.set_attribute("faas.coldstart", _cold)
    _cold = False
    if call := current_call():
        server_span.set_attribute("faas.invocation_id", call.call_id)


_CONTEXT_HEADERS = frozenset(
    (
        b"traceparent",
        b"x-kafka-traceparent",
        b"x-kafka-tracestate",
        b"b3",
        b"x-b3-traceid",
        b"x-b3-spanid",
        b"x-b3-sampled",
        b"x-b3-flags",
    )
)


def _from_kafka(found: dict[bytes, bytes]) -> bytes | None:
    value = found.get(b"x-kafka-traceparent", b"")
    return value if _TRACEPARENT.fullmatch(value) else None


def _from_b3(found: dict[bytes, bytes]) -> bytes | None:
    """Translate B3 (https://github.com/openzipkin/b3-propagation) to a traceparent."""
    if single := found.get(b"b3"):
        parts = [*single.split(b"-"), b"", b""]
        trace_id, span_id, sampled = parts[0], parts[1], parts[2]
    else:
        trace_id, span_id = found.get(b"x-b3-traceid", b""), found.get(b"x-b3-spanid", b"")
        sampled = b"d" if found.get(b"x-b3-flags") == b"1" else found.get(b"x-b3-sampled", b"1")
    trace_id, span_id = trace_id.lower(), span_id.lower()
    if not _B3_TRACE.fullmatch(trace_id) or not _B3_SPAN.fullmatch(span_id):
        return None
    flags = b"00" if sampled in (b"0", b"false") else b"01"
    return b"00-" + trace_id.rjust(32, b"0") + b"-" + span_id + b"-" + flags

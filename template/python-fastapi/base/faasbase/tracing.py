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
from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    Tracer,
    TracerProvider,
)

from .context import current_call

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Scope

Headers = Sequence[tuple[bytes, bytes]]
AttributeValue = str | bool | int | float | Sequence[str] | Sequence[int] | Sequence[float]

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_PLAIN_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[01]")

_FOLLOWING = "remoteParentNotSampled:AlwaysOffSampler"

EXCHANGE = "faasbase.exchange"
"""Key of the scope under which the call's `Exchange` waits for its SERVER span."""
PROBE_SCHEME = "probe"
"""What a probe's scope has for its scheme, so that contrib's filter of URLs can tell it; no client can write that."""

(_SPAN_KEY,) = trace.set_span_in_context(trace.INVALID_SPAN, Context())
"""Where a context holds its span; to make one of nothing else by the library's function costs a copy."""
_provider: TracerProvider | None = None
_tracer: Tracer | None = None
_follows_callers = False
_cold = True


@dataclass(frozen=True, slots=True)
class TraceIds:
    """The ids of the current span, in hexadecimal as logs and exemplars show them."""

    trace_id: str
    span_id: str
    sampled: bool


def use_provider(provider: TracerProvider | None) -> None:
    """Make spans with *provider* from now on; None makes none."""
    global _provider, _tracer, _follows_callers
    _provider = provider
    _tracer = provider.get_tracer("faasbase") if provider else None
    sampler = getattr(provider, "sampler", None)
    _follows_callers = sampler is not None and _FOLLOWING in sampler.get_description()


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
    return as_text(span.get_span_context())


def as_text(ids: SpanContext) -> TraceIds | None:
    """Return *ids* as logs and exemplars show them; None where they are no real ones."""
    if not ids.is_valid:
        return None
    return TraceIds(f"{ids.trace_id:032x}", f"{ids.span_id:016x}", ids.trace_flags.sampled)


def inject(carrier: MutableMapping[str, str]) -> None:
    """Write the current trace context into *carrier*, W3C headers by name."""
    propagate.inject(carrier)


class _SendersSpan(NonRecordingSpan):
    """The span that a ``traceparent`` names, read when somebody asks: for most messages nobody does."""

    def __init__(self, parent: str) -> None:
        self._parent = parent
        self._read: SpanContext | None = None

    def get_span_context(self) -> SpanContext:
        if self._read is None:
            parent = self._parent
            flags = TraceFlags(int(parent[53:], 16))
            self._read = SpanContext(int(parent[3:35], 16), int(parent[36:52], 16), True, flags)
        return self._read


def remote_context(headers: Mapping[str, str]) -> Context | None:
    """Return the context that a message's *headers* carry, names in lower case; None where they carry none."""
    parent = headers.get("traceparent")
    if parent is None or not _PLAIN_TRACEPARENT.fullmatch(parent):
        return propagate.extract(headers) if parent else None
    if "baggage" in headers or "tracestate" in headers:
        return propagate.extract(headers)
    return Context({_SPAN_KEY: _SendersSpan(parent)})


def is_left_out(headers: Mapping[str, str]) -> bool:
    """Tell whether the sender of *headers* has decided that the trace is not recorded, and we follow it in that."""
    parent = headers.get("traceparent")
    return parent is not None and _follows_callers and parent.endswith("-00")


def start_span(
    name: str,
    kind: SpanKind,
    attributes: Mapping[str, AttributeValue],
    context: Context | None = None,
    links: Sequence[Span] = (),
) -> Span | None:
    """
    Begin a span below *context* (None: a root) with *links* to others; whoever asks ends it and makes it current.

    None where tracing is off.
    """
    if _tracer is None:
        return None
    linked = [Link(other.get_span_context()) for other in links]
    return _tracer.start_span(name, context or Context(), kind, attributes, linked)


def continue_trace(headers: Headers) -> None:
    """Make the caller's context current where no SERVER span will do it, so that logs and calls go on with it."""
    if _tracer is None and any(name == b"traceparent" for name, _ in headers):
        carrier = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
        otel_context.attach(propagate.extract(carrier))


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

"""
Traces: spans of the users' own, and trace context carried from callers to callees.

The OpenTelemetry SDK is imported only where an OTLP endpoint is set (`export.py`).  Without one no span is made, and
the caller's context still passes through to calls, events and logs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from contextvars import Token
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
    Tracer,
    TracerProvider,
)

from .context import current_call
from .remote_spans import NewTrace, SendersSpan, is_plain, is_sampled

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Scope

    from .light_spans import LightSpans

Headers = Sequence[tuple[bytes, bytes]]
AttributeValue = str | bool | int | float | Sequence[str] | Sequence[int] | Sequence[float]

_HALF = 2**64 - 1
EXCHANGE = "faasbase.exchange"
"""Key of the scope under which the call's `Exchange` waits for its SERVER span."""
PROBE_SCHEME = "probe"
"""What a probe's scope has for its scheme, so that contrib's filter of URLs can tell it; no client can write that."""

(_SPAN_KEY,) = trace.set_span_in_context(trace.INVALID_SPAN, Context())
"""Where a context holds its span; to make one of nothing else by the library's function costs a copy."""
_NO_ATTRIBUTES: Mapping[str, AttributeValue] = {}
_provider: TracerProvider | None = None
_tracer: Tracer | None = None
_light: LightSpans | None = None
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
    global _provider, _tracer, _light, _follows_callers
    _provider = provider
    _tracer = provider.get_tracer("faasbase") if provider else None
    _light, _follows_callers = None, False
    if _tracer is not None:
        from .light_spans import light_spans
        from .sampling import rules_of

        rules = rules_of(_tracer)
        _light, _follows_callers = light_spans(_tracer), rules is not None and rules.leaves_out


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


def enter_sender(headers: Mapping[str, str]) -> Context | None:
    """
    Return the context that a message's *headers* carry, names in lower case, for the span that is to be below it.

    None where none is to be recorded: since tracing is off, or its sender has decided that and we follow it.  That
    context, if there is any, is the current one of this task then.
    """
    parent = headers.get("traceparent")
    if parent is None:
        return _new_trace()
    if "baggage" in headers or "tracestate" in headers or not is_plain(parent):
        context = propagate.extract(headers)
        left_out = _is_left_out(context)
    else:
        context, left_out = Context({_SPAN_KEY: SendersSpan(parent)}), not is_sampled(parent)
    if _tracer is not None and not (_follows_callers and left_out):
        return context
    otel_context.attach(context)
    return None


def _new_trace() -> Context | None:
    """Decide as the sampler would whether a trace that begins here is recorded; see `enter_sender`."""
    if _light is None or _light.sampled_below is None:
        return None if _tracer is None else Context()
    trace_id = random.getrandbits(128)
    recorded = trace_id & _HALF < _light.sampled_below
    context = Context({_SPAN_KEY: NewTrace(trace_id, recorded)})
    if recorded:
        return context
    otel_context.attach(context)
    return None


def enter_span(span: Span | None, context: Context) -> Token[Context]:
    """Make *span*, if there is one, the current one, and *context* else, until the token is given to ``detach``."""
    return otel_context.attach(context if span is None else Context({**context, _SPAN_KEY: span}))


def start_span(
    name: str,
    kind: SpanKind,
    attributes: dict[str, AttributeValue],
    context: Context | None = None,
    links: Sequence[Span] = (),
    shared: Mapping[str, AttributeValue] = _NO_ATTRIBUTES,
) -> Span | None:
    """
    Begin a span below *context* (None: a root) with *links* to others; whoever asks ends it and makes it current.

    None where tracing is off, or nothing of that trace is recorded.  Whoever asks gives the *attributes* away; those
    *shared* with other spans, the same object each time, cost less.
    """
    if _tracer is None:
        return None
    if _light is not None and context is not None and not links:
        parent = context.get(_SPAN_KEY)
        if isinstance(parent, NewTrace) and parent.recorded:
            return _light.begin(name, kind, (shared, attributes), context, parent.trace_id)
        if isinstance(parent, SendersSpan) and (ids := parent.get_span_context()).trace_flags.sampled:
            return _light.begin(name, kind, (shared, attributes), context, ids.trace_id, ids)
    if _follows_callers and context is not None and not links and _is_left_out(context):
        return None
    linked = [Link(other.get_span_context()) for other in links]
    return _tracer.start_span(name, context or Context(), kind, {**shared, **attributes}, linked)


def _is_left_out(context: Context) -> bool:
    parent = context.get(_SPAN_KEY)
    if not isinstance(parent, NonRecordingSpan):
        return False
    ids = parent.get_span_context()
    return ids.is_valid and not ids.trace_flags.sampled


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

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
    SpanKind,
    Tracer,
    TracerProvider,
)

from .context import current_call
from .remote_spans import NewTrace, SendersSpan, senders_span

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Scope

    from .light_spans import LightSpans

Headers = Sequence[tuple[bytes, bytes]]
Parent = Context | SendersSpan | NewTrace
AttributeValue = str | bool | int | float | Sequence[str] | Sequence[int] | Sequence[float]

_HALF = 2**64 - 1
EXCHANGE = "faasbase.exchange"
"""Key of the scope under which the call's `Exchange` waits for its SERVER span."""
PROBE_SCHEME = "probe"
"""What a probe's scope has for its scheme, so that contrib's filter of URLs can tell it; no client can write that."""

(_SPAN_KEY,) = trace.set_span_in_context(trace.INVALID_SPAN, Context())
"""Where a context holds its span; to make one of nothing else by the library's function costs a copy."""
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
    ids = span.get_span_context()
    if not ids.is_valid:
        return None
    return TraceIds(f"{ids.trace_id:032x}", f"{ids.span_id:016x}", ids.trace_flags.sampled)


def inject(carrier: MutableMapping[str, str]) -> None:
    """Write the current trace context into *carrier*, W3C headers by name."""
    propagate.inject(carrier)


def enter_sender(headers: Mapping[str, str]) -> Parent | None:
    """
    Return what the span of a message with *headers*, names in lower case, is to be below.

    None where none is to be recorded: since tracing is off, or its sender has decided that and we follow it.  The
    context that the headers carry, if there is any, is the current one of this task then.
    """
    parent = headers.get("traceparent")
    if parent is None:
        return _new_trace()
    if "baggage" in headers or "tracestate" in headers or (sender := senders_span(parent)) is None:
        context = propagate.extract(headers)
        left_out = _is_left_out(context)
    elif sender.sampled and _light is not None and _light.processors.take_light:
        return sender
    else:
        context, left_out = Context({_SPAN_KEY: sender}), not sender.sampled
    if _tracer is not None and not (_follows_callers and left_out):
        return context
    otel_context.attach(context)
    return None


def _new_trace() -> Parent | None:
    """Decide as the sampler would whether a trace that begins here is recorded; see `enter_sender`."""
    if _light is None or _light.sampled_below is None or not _light.processors.take_light:
        return None if _tracer is None else Context()
    trace_id = random.getrandbits(128)
    place = NewTrace(trace_id, trace_id & _HALF < _light.sampled_below)
    if place.recorded:
        return place
    otel_context.attach(Context({_SPAN_KEY: place}))
    return None


def enter_span_below(
    parent: Parent,
    name: str,
    kind: SpanKind,
    shared: Mapping[str, AttributeValue],
    own: dict[str, AttributeValue],
) -> tuple[Span | None, Token[Context]]:
    """
    Begin a span below what `enter_sender` has returned, and make it the current one, as `enter_span` does.

    Its attributes are those *shared* with many others, the same object each time, and its *own*, which are given away.
    """
    if _light is not None and not isinstance(parent, Context):
        light = _light.begin(name, kind, shared, own, parent)
        return light, otel_context.attach(Context({_SPAN_KEY: light}))
    context = parent if isinstance(parent, Context) else Context({_SPAN_KEY: parent})
    span = start_span(name, kind, {**shared, **own}, context)
    return span, enter_span(span, context)


def enter_span(span: Span | None, context: Context) -> Token[Context]:
    """Make *span*, if there is one, the current one, and *context* else, until the token is given to ``detach``."""
    return otel_context.attach(context if span is None else Context({**context, _SPAN_KEY: span}))


def start_span(
    name: str,
    kind: SpanKind,
    attributes: Mapping[str, AttributeValue],
    context: Context | None = None,
    links: Sequence[Span] = (),
) -> Span | None:
    """
    Begin a span below *context* (None: a root) with *links* to others; whoever asks ends it and makes it current.

    None where tracing is off, or nothing of that trace is recorded.
    """
    if _tracer is None or (_follows_callers and context is not None and not links and _is_left_out(context)):
        return None
    linked = [Link(other.get_span_context()) for other in links]
    return _tracer.start_span(name, context or Context(), kind, attributes, linked)


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

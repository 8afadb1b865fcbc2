"""Spans, metrics and log fields of events, by the semantic conventions of messaging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanContext, SpanKind, StatusCode

from .. import metrics
from ..tracing import AttributeValue, is_left_out, remote_context, start_span, tracing_on
from .envelope import Envelope
from .outcomes import Outcome
from .records import Record
from .texts import shown

LAG = metrics.gauge("faas_event_lag_messages", "Messages not settled yet.", ("destination", "partition"))
LAG_SECONDS = metrics.gauge("faas_event_lag_seconds", "Age of the message taken last.", ("destination", "partition"))
LANES = metrics.gauge("faas_event_lanes_in_use", "Events being handled.", ("destination", "partition"))
DEAD_LETTERS = metrics.counter("faas_dead_letters", "Events given up, by why.", ("destination", "error"))
WAITING = metrics.gauge("faas_dead_letters_waiting", "Events given up that nobody keeps yet.", ("destination",))
PUBLISHED = metrics.counter("faas_events_published", "Events sent, by how that went.", ("destination", "outcome"))


def process_span(record: Record, envelope: Envelope) -> ProcessSpan | None:
    """
    Return the span of one attempt at an event, below the trace of whoever has sent it; it begins with its block.

    None for the most, which are not recorded: the sender's context, if any, is made the current one of this task then.
    Pushed over HTTP, a span is below the call's SERVER span.
    """
    if record.system == "http":
        return ProcessSpan(record, envelope, SpanKind.INTERNAL, otel_context.get_current()) if tracing_on() else None
    headers = record.headers
    if "traceparent" not in headers:
        # CloudEvents' distributed tracing extension, which travels in the event itself.
        headers = envelope.attributes.get("extensions") or headers
    parent = remote_context(headers)
    if tracing_on() and not is_left_out(headers):
        return ProcessSpan(record, envelope, SpanKind.CONSUMER, parent if parent is not None else Context())
    if parent is not None:
        otel_context.attach(parent)
    return None


class ProcessSpan:
    """The span of one attempt at an event below *parent*, current inside the ``with`` block."""

    __slots__ = ("_envelope", "_kind", "_parent", "_record", "_span", "_token")

    def __init__(self, record: Record, envelope: Envelope, kind: SpanKind, parent: Context) -> None:
        self._record, self._envelope, self._kind, self._parent = record, envelope, kind, parent

    def __enter__(self) -> Self:
        parent = self._parent
        self._span = start_span(self._name(), self._kind, self._attributes(), parent)
        self._token = otel_context.attach(trace.set_span_in_context(self._span, parent) if self._span else parent)
        return self

    def end(self, outcome: Outcome) -> SpanContext | None:
        """Tell what became of the event, and return the span's ids, if it is recorded."""
        span = self._span
        if span is None or not span.is_recording():
            return None
        span.set_attribute("faas.event.outcome", outcome.kind)
        if outcome.kind not in ("settled", "ignored"):
            span.set_attribute("error.type", outcome.error)
            span.set_status(StatusCode.ERROR, outcome.reason)
        return span.get_span_context()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        otel_context.detach(self._token)
        _end(self._span, error)

    def _name(self) -> str:
        return f"process {self._record.counted_by or self._envelope.type or 'event'}"

    def _attributes(self) -> dict[str, AttributeValue]:
        record, attributes = self._record, self._envelope.attributes
        told: dict[str, AttributeValue] = {"faas.trigger": "pubsub", "faas.event.attempt": record.attempt}
        for name in ("id", "source", "type", "subject"):
            if isinstance(value := attributes.get(name), str):
                told[f"cloudevents.event_{name}"] = value if len(value) <= 256 else shown(value)
        if record.destination:
            told |= {
                "messaging.system": record.system,
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": record.destination,
                "messaging.message.id": record.position,
                "messaging.message.body.size": len(record.content),
            }
        return {**told, **record.attributes}


class BatchSpan:
    """The span of a handler's call with a whole batch: a trace of its own, linked with those of its events."""

    __slots__ = ("_name", "_span", "_spans", "_token")

    def __init__(self, name: str, spans: Sequence[Span]) -> None:
        self._name, self._spans = name, spans

    def __enter__(self) -> Self:
        count: dict[str, AttributeValue] = {"messaging.batch.message_count": len(self._spans), "faas.trigger": "pubsub"}
        self._span = start_span(f"process batch {self._name}", SpanKind.CONSUMER, count, None, self._spans)
        context = trace.set_span_in_context(self._span, Context()) if self._span else Context()
        self._token = otel_context.attach(context)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        otel_context.detach(self._token)
        _end(self._span, error)


class SendSpan:
    """The PRODUCER span of an event on its way out, current inside the ``with`` block."""

    __slots__ = ("_attributes", "_name", "_span", "_token")

    def __init__(self, system: str, destination: str, attributes: Mapping[str, AttributeValue]) -> None:
        self._name = f"send {destination}"
        self._attributes: dict[str, AttributeValue] = {
            "messaging.system": system,
            "messaging.operation.name": "send",
            "messaging.operation.type": "send",
            "messaging.destination.name": destination,
            **attributes,
        }

    def __enter__(self) -> Self:
        self._span = start_span(self._name, SpanKind.PRODUCER, self._attributes, otel_context.get_current())
        self._token = otel_context.attach(trace.set_span_in_context(self._span)) if self._span else None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._span is not None and self._token is not None:
            otel_context.detach(self._token)
            if error is not None:
                self._span.set_attribute("error.type", type(error).__name__)
                self._span.set_status(StatusCode.ERROR, type(error).__name__)
            self._span.end()


def _end(span: Span | None, error: BaseException | None) -> None:
    """End *span*, failed where it was left with an *error*."""
    if span is None:
        return
    if error is not None:
        span.set_status(StatusCode.ERROR, type(error).__name__)
    span.end()

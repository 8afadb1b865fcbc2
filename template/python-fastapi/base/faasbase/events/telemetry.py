"""Spans, metrics and log fields of events, by the semantic conventions of messaging."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import TracebackType
from typing import Any, Self

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, Span, SpanKind, StatusCode

from .. import metrics
from ..tracing import AttributeValue, Parent, enter_sender, enter_span, enter_span_below, start_span, tracing_on
from .envelope import Envelope
from .outcomes import Outcome
from .records import Record
from .texts import shown

_LONGEST, _MAX_SHARED = 256, 1024
_OUTCOME = "faas.event.outcome"

LAG = metrics.gauge("faas_event_lag_messages", "Messages not settled yet.", ("destination", "partition"))
LAG_SECONDS = metrics.gauge("faas_event_lag_seconds", "Age of the message taken last.", ("destination", "partition"))
LANES = metrics.gauge("faas_event_lanes_in_use", "Events being handled.", ("destination", "partition"))
DEAD_LETTERS = metrics.counter("faas_dead_letters", "Events given up, by why.", ("destination", "error"))
WAITING = metrics.gauge("faas_dead_letters_waiting", "Events given up that nobody keeps yet.", ("destination",))
PUBLISHED = metrics.counter("faas_events_published", "Events sent, by how that went.", ("destination", "outcome"))


def process_span(record: Record, envelope: Envelope) -> ProcessSpan | None:
    """
    Begin the span of one attempt at an event, below the trace of whoever has sent it, and make it the current one.

    None for the most, which are not recorded: the sender's context, if any, is made the current one of this task then.
    Pushed over HTTP, a span is below the call's SERVER span.
    """
    if record.system == "http":
        return ProcessSpan(record, envelope, SpanKind.INTERNAL, otel_context.get_current()) if tracing_on() else None
    headers = record.headers
    if "traceparent" not in headers:
        # CloudEvents' distributed tracing extension, which travels in the event itself.
        headers = envelope.attributes.get("extensions") or headers
    parent = enter_sender(headers)
    return None if parent is None else ProcessSpan(record, envelope, SpanKind.CONSUMER, parent)


class ProcessSpan:
    """The span of one attempt at an event below *parent*, the current one until `end` or `fail`."""

    __slots__ = ("_span", "_token")

    def __init__(self, record: Record, envelope: Envelope, kind: SpanKind, parent: Parent) -> None:
        said = envelope.attributes
        name, shared = _shared(
            record.system,
            record.destination,
            record.stream,
            record.origin,
            record.attempt,
            _short(said.get("type", "")),
            _short(said.get("source", "")),
        )
        self._span, self._token = enter_span_below(parent, name, kind, shared, _own(record, said))

    def end(self, outcome: Outcome) -> Span | None:
        """Tell what became of the event, and return the span, or no more than its ids, if it is recorded."""
        otel_context.detach(self._token)
        span = self._span
        if span is None or not span.is_recording():
            return None
        if outcome.kind not in ("settled", "ignored"):
            span.set_attribute("error.type", outcome.error)
            span.set_status(StatusCode.ERROR, outcome.reason)
        if (end_noted := getattr(span, "end_noted", None)) is not None and end_noted(_OUTCOME, outcome.kind):
            return span
        if span.is_recording():
            span.set_attribute(_OUTCOME, outcome.kind)
            span.end()
        return NonRecordingSpan(span.get_span_context())

    def fail(self, error: BaseException) -> None:
        """End it, left with an *error* by which nothing has become of the event."""
        otel_context.detach(self._token)
        _end(self._span, error)


@lru_cache(_MAX_SHARED)
def _shared(
    system: str,
    destination: str,
    stream: str,
    origin: tuple[tuple[str, str], ...],
    attempt: int,
    kind: str,
    source: str,
) -> tuple[str, Mapping[str, AttributeValue]]:
    """Return the name of spans, and what they say as many others do."""
    shared: dict[str, AttributeValue] = {"faas.trigger": "pubsub", "faas.event.attempt": attempt}
    if kind:
        shared["cloudevents.event_type"] = shown(kind)
    if source:
        shared["cloudevents.event_source"] = shown(source)
    if destination:
        shared |= {
            "messaging.system": system,
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": destination,
            **dict(origin),
        }
    return f"process {stream or destination or kind or 'event'}", shared


def _own(record: Record, attributes: Mapping[str, Any]) -> dict[str, AttributeValue]:
    """Return what they say of the one record."""
    own: dict[str, AttributeValue] = {}
    if (event_id := attributes.get("id")) is not None:
        own["cloudevents.event_id"] = _short(event_id)
    if (subject := attributes.get("subject")) is not None:
        own["cloudevents.event_subject"] = _short(subject)
    if record.destination:
        own["messaging.message.id"] = record.position
        own["messaging.message.body.size"] = len(record.content)
    if record.is_kafkas:
        own["messaging.kafka.offset"] = record.offset
    return own


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else shown(text)


class BatchSpan:
    """The span of a handler's call with a whole batch: a trace of its own, linked with those of its events."""

    __slots__ = ("_name", "_span", "_spans", "_token")

    def __init__(self, name: str, spans: Sequence[Span]) -> None:
        self._name, self._spans = name, spans

    def __enter__(self) -> Self:
        count: dict[str, AttributeValue] = {"messaging.batch.message_count": len(self._spans), "faas.trigger": "pubsub"}
        self._span = start_span(f"process batch {self._name}", SpanKind.CONSUMER, count, None, self._spans)
        self._token = enter_span(self._span, Context())
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
        context = otel_context.get_current()
        self._span = start_span(self._name, SpanKind.PRODUCER, self._attributes, context)
        self._token = enter_span(self._span, context)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        otel_context.detach(self._token)
        if self._span is not None:
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

"""A provider of spans that keeps what has ended, and what makes light ones for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import (
    DEFAULT_ON,
    ParentBased,
    Sampler,
)
from opentelemetry.trace import (
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    set_span_in_context,
)

from faasbase.light_spans import LightSpan, SpanProcessors, light_spans
from faasbase.otlp import SpanEncoder
from faasbase.redaction import Redactor
from faasbase.remote_spans import SendersSpan

SHARED = {"faas.trigger": "pubsub", "messaging.system": "kafka"}
IDS = f"{'a' * 32}-{'b' * 16}"
SENDER = SendersSpan(f"00-{IDS}-03")
PARENT = SpanContext(int("a" * 32, 16), int("b" * 16, 16), True, TraceFlags(0x03))


class Picky(ParentBased):
    """A sampler of somebody's own, which is described as the one it is made of."""


class Keeping(SpanExporter):
    """Keeps the batches that it is given, as they are sent."""

    def __init__(self, resource: Resource) -> None:
        self.resource, self.sent = resource, ExportTraceServiceRequest()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.sent.MergeFromString(SpanEncoder(Redactor(Path("/nonexistent")), self.resource).encode(spans))
        return SpanExportResult.SUCCESS


class Kept:
    """A provider that keeps what has ended, and what makes light spans for it."""

    def __init__(self, sampler: Sampler = DEFAULT_ON) -> None:
        resource = Resource.create({"service.name": "orders"})
        self.exporter = Keeping(resource)
        self.processors = SpanProcessors(BatchSpanProcessor(self.exporter))
        self.provider = TracerProvider(sampler, resource, shutdown_on_exit=False, active_span_processor=self.processors)
        self.tracer = self.provider.get_tracer("faasbase")
        self.light = light_spans(self.tracer)

    def begin(self) -> LightSpan:
        assert self.light is not None
        own: dict[str, Any] = {"id": "o-1", "size": 7}
        return self.light.begin("process orders", SpanKind.CONSUMER, SHARED, own, SENDER)

    def usual(self) -> Span:
        """Begin what the SDK would."""
        context = set_span_in_context(SENDER)
        return self.tracer.start_span("process orders", context, SpanKind.CONSUMER, {**SHARED, "id": "o-1", "size": 7})

    @property
    def sent(self) -> ExportTraceServiceRequest:
        """What was exported so far."""
        self.provider.force_flush()
        return self.exporter.sent

    @property
    def ended(self) -> list[ProtoSpan]:
        """The spans that were, by when they ended."""
        spans = [span for of in self.sent.resource_spans for scope in of.scope_spans for span in scope.spans]
        return sorted(spans, key=lambda span: span.end_time_unix_nano)

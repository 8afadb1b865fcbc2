"""A provider of spans that keeps what has ended, and what makes light ones for it."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import (
    DEFAULT_ON,
    ParentBased,
    Sampler,
)
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    set_span_in_context,
)

from faasbase.light_spans import LightSpan, light_spans

SHARED = {"faas.trigger": "pubsub", "messaging.system": "kafka"}
IDS = f"{'a' * 32}-{'b' * 16}"
PARENT = SpanContext(0xA1 << 96, 0xB2, True, TraceFlags(0x03))


class Picky(ParentBased):
    """A sampler of somebody's own, which is described as the one it is made of."""


class Kept:
    """A provider that keeps what has ended, and what makes light spans for it."""

    def __init__(self, sampler: Sampler = DEFAULT_ON) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("faasbase")
        self.light = light_spans(self.tracer)

    def begin(self) -> LightSpan:
        assert self.light is not None
        context = set_span_in_context(NonRecordingSpan(PARENT))
        attributes: tuple[dict[str, str], dict[str, Any]] = SHARED, {"id": "o-1", "size": 7}
        return self.light.begin("process orders", SpanKind.CONSUMER, attributes, context, PARENT.trace_id, PARENT)

    def usual(self) -> Span:
        """Begin what the SDK would."""
        context = set_span_in_context(NonRecordingSpan(PARENT))
        return self.tracer.start_span("process orders", context, SpanKind.CONSUMER, {**SHARED, "id": "o-1", "size": 7})

    @property
    def ended(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

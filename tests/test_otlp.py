"""Spans as they are written for OTLP: what the library would write, and no secrets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from faasbase.otlp import SpanEncoder
from faasbase.redaction import MASK, Redactor

REMOTE = SpanContext(0xA1 << 96, 0xB2, True, TraceFlags(1), TraceState([("vendor", "one"), ("other", "two")]))
SECRET = "hunter2-hunter2"


class Spans:
    """A provider that keeps what has ended."""

    def __init__(self) -> None:
        self.kept = InMemorySpanExporter()
        limits = SpanLimits(max_span_attributes=20)
        self.provider = TracerProvider(resource=Resource.create({"service.name": "orders"}), span_limits=limits)
        self.provider.add_span_processor(SimpleSpanProcessor(self.kept))
        self.tracer = self.provider.get_tracer("faasbase", "1.2", "https://schema.test/1", {"of": "scope"})

    def ended(self) -> Sequence[ReadableSpan]:
        return self.kept.get_finished_spans()


@pytest.fixture
def spans() -> Iterator[Spans]:
    made = Spans()
    yield made
    made.provider.shutdown()


def encoded(spans: Sequence[ReadableSpan], redactor: Redactor) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    request.ParseFromString(SpanEncoder(redactor, Resource({})).encode(spans))
    return request


def test_every_field_is_what_the_library_writes(spans: Spans, tmp_path: Path) -> None:
    parent = set_span_in_context(NonRecordingSpan(REMOTE))
    for number, kind in enumerate(SpanKind):
        links = [Link(REMOTE, {"why": "batch"}), Link(SpanContext(7, 8, False))]
        with spans.tracer.start_as_current_span(f"{kind.name} ü", parent, kind, {"number": number}, links) as span:
            span.add_event("seen", {"times": 2, "long": "x" * 300})
            span.set_attributes(
                {"on": True, "one": 1, "real": 1.0, "below": -5, "least": -(2**63), "big": 2**62, "empty": ""}
            )
            span.set_attributes({"inner": {"a": 1, "b": {"c": "d"}}})
            span.set_attributes({"words": ["a", "b"], "numbers": [1, 2], "flags": [True, False]})
        with spans.provider.get_tracer("another").start_as_current_span("plain") as span:
            span.set_status(StatusCode.ERROR, "it failed")
            span.set_attributes({f"many{index}": index for index in range(25)})
    assert encoded(spans.ended(), Redactor(tmp_path)) == encode_spans(spans.ended())


def test_values_that_are_equal_but_of_other_types_stay_apart(spans: Spans, tmp_path: Path) -> None:
    for value in (True, 1, 1.0, False, 0, "1"):
        spans.tracer.start_span("one", attributes={"value": value}).end()
    assert encoded(spans.ended(), Redactor(tmp_path)) == encode_spans(spans.ended())


def test_what_cannot_be_written_loses_no_other_span(spans: Spans, tmp_path: Path) -> None:
    """Data from outside may hold half a surrogate pair, and Python's numbers have no end."""
    half, big = "half \ud800", 2**70
    with spans.tracer.start_as_current_span(half, attributes={"good": 1}) as span:
        span.set_attributes(
            {"text": half, half: "value", "big": big, "low": -big, "list": [half, "b"], "inner": {half: half}}
        )
        span.add_event(half, {"value": half})
        span.set_status(StatusCode.ERROR, half)
    named = spans.tracer.start_span("a name that is none")
    named.update_name(5)  # type: ignore[arg-type]
    named.end()
    spans.tracer.start_span("ended at no whole number").end(1.5)  # type: ignore[arg-type]
    spans.tracer.start_span("the one beside it").end()
    first, second = encoded(spans.ended(), Redactor(tmp_path)).resource_spans[0].scope_spans[0].spans
    found = {one.key: one.value for one in first.attributes}
    assert (found["text"].string_value, found["big"].string_value) == ("half \\ud800", str(big))
    assert (first.name, first.status.message, first.events[0].name) == ("half \\ud800",) * 3
    assert second.name == "the one beside it"


def test_secrets_are_masked_wherever_they_stand(spans: Spans, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(SECRET)
    link = Link(REMOTE, {"of": SECRET})
    with spans.tracer.start_as_current_span(f"get {SECRET}", links=[link], attributes={"q": f"a {SECRET}"}) as span:
        span.add_event("seen", {"value": SECRET})
        span.add_event(f"saw {SECRET}")
        span.set_attributes({f"of {SECRET}": "text", f"in {SECRET}": [1]})
        span.set_attributes({"api_key": "whatever", "list": ["x", SECRET], "api_keys": 7})
        span.set_status(StatusCode.ERROR, f"no {SECRET}")
    written = encoded(spans.ended(), Redactor(tmp_path))
    assert SECRET not in str(written)
    (span_,) = written.resource_spans[0].scope_spans[0].spans
    found = {one.key: one.value for one in span_.attributes}
    assert (span_.name, found["q"].string_value, found["api_key"].string_value) == (f"get {MASK}", f"a {MASK}", MASK)
    assert span_.status.message == f"no {MASK}"

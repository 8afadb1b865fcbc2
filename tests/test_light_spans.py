"""Light spans: what comes of them is what comes of the SDK's, whether anybody touches them or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

import pytest
from opentelemetry.context import Context, get_current
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, DEFAULT_ON, Decision, ParentBased, Sampler, TraceIdRatioBased
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

from faasbase.light_spans import LightSpan, LightSpans, light_spans
from faasbase.otlp import SpanEncoder
from faasbase.redaction import Redactor
from faasbase.tracing import enter_sender, start_span, use_provider

SHARED = {"faas.trigger": "pubsub", "messaging.system": "kafka"}
PARENT = SpanContext(0xA1 << 96, 0xB2, True, TraceFlags(0x03))


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
        return self.light.begin(
            "process orders", SpanKind.CONSUMER, (SHARED, {"id": "o-1", "size": 7}), PARENT.trace_id, PARENT
        )

    def usual(self) -> Span:
        """Begin what the SDK would."""
        context = set_span_in_context(NonRecordingSpan(PARENT))
        return self.tracer.start_span("process orders", context, SpanKind.CONSUMER, {**SHARED, "id": "o-1", "size": 7})

    @property
    def ended(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()


@pytest.fixture
def kept() -> Iterator[Kept]:
    made = Kept()
    yield made
    made.provider.shutdown()


def nothing(span: Span) -> None:
    """Leave it as it is."""


def touch(span: Span) -> None:
    """Do all that can be done with a span."""
    span.set_attribute("one", [1, 2])
    span.set_attributes({"two": "2", "three": {"inner": object()}})  # type: ignore[dict-item]
    span.update_name("another")
    span.add_event("seen", {"times": 2}, timestamp=1)
    span.add_link(PARENT, {"why": "test"})
    span.record_exception(ValueError("broken"), timestamp=2)
    span.set_status(StatusCode.ERROR, "it failed")


def told(span: ReadableSpan) -> dict[str, object]:
    """Return what *span* says but for its times and its own id."""
    document: dict[str, object] = {
        "name": span.name,
        "kind": span.kind,
        "parent": span.parent,
        "attributes": dict(span.attributes or {}),
        "status": (span.status.status_code, span.status.description),
        "events": [(event.name, event.timestamp) for event in span.events],
        "links": [(link.context, dict(link.attributes or {})) for link in span.links],
        "resource": span.resource,
        "scope": span.instrumentation_scope,
        "trace": (span.context.trace_id, span.context.trace_flags, span.context.is_remote),
    }
    return document


@pytest.mark.parametrize("use", [nothing, touch])
def test_it_says_what_a_span_of_the_sdk_says(kept: Kept, use: Callable[[Span], None]) -> None:
    for span in (kept.usual(), kept.begin()):
        use(span)
        span.end()
        assert not span.is_recording()
    usual, light = kept.ended
    assert told(light) == told(usual)
    assert light.start_time is not None
    assert light.end_time is not None
    assert 0 < light.start_time <= light.end_time
    assert light.context.span_id not in (0, usual.context.span_id)


def test_its_ids_stay_the_same_when_it_is_touched(kept: Kept) -> None:
    span = kept.begin()
    ids = span.get_span_context()
    child = kept.tracer.start_span("child", set_span_in_context(span))
    span.set_attribute("one", 1)
    child.end()
    span.note("faas.event.outcome", "settled")
    span.end()
    span.end()
    inner, outer = kept.ended
    assert outer.context.span_id == span.get_span_context().span_id == ids.span_id
    assert inner.parent == ids
    assert dict(outer.attributes or {}).items() >= {"one": 1, "faas.event.outcome": "settled", "id": "o-1"}.items()


def test_first_span_of_a_trace_stays_the_first(kept: Kept) -> None:
    assert kept.light is not None
    spans = [kept.light.begin("process", SpanKind.CONSUMER, (SHARED, {}), 0xC3 << 64) for _ in range(2)]
    spans[0].set_attribute("one", 1)
    for span in (*spans, kept.tracer.start_span("process", Context())):
        span.end()
    *light, usual = kept.ended
    assert [(span.parent, span.context.trace_id) for span in light] == [(None, 0xC3 << 64)] * 2
    assert {span.context.trace_flags for span in (*light, usual)} == {0x03}


def test_what_comes_after_its_end_changes_nothing(kept: Kept) -> None:
    span = kept.begin()
    span.note("faas.event.outcome", "settled")
    span.end()
    touch(span)
    span.end()
    [ended] = kept.ended
    assert dict(ended.attributes or {}) == {**SHARED, "id": "o-1", "size": 7, "faas.event.outcome": "settled"}
    assert (ended.name, len(ended.events)) == ("process orders", 0)


def test_threads_that_touch_one_at_once_touch_the_same(kept: Kept) -> None:
    span = kept.begin()
    with ThreadPoolExecutor(8) as threads:
        for number in range(64):
            threads.submit(span.set_attribute, f"n{number}", number)
    span.end()
    [ended] = kept.ended
    assert dict(ended.attributes or {}).items() >= {f"n{number}": number for number in range(64)}.items()


def test_it_is_written_as_the_library_writes_it(kept: Kept, tmp_path: Path) -> None:
    for _ in range(3):
        kept.begin().end()
    request = ExportTraceServiceRequest()
    request.ParseFromString(SpanEncoder(Redactor(tmp_path)).encode(kept.ended))
    assert request == encode_spans(kept.ended)


@pytest.mark.parametrize(
    ("sampler", "light"),
    [
        (DEFAULT_ON, True),
        (ParentBased(TraceIdRatioBased(0.1)), True),
        (ALWAYS_ON, False),
        (TraceIdRatioBased(0.1), False),
        (ParentBased(ALWAYS_ON, remote_parent_sampled=TraceIdRatioBased(0.1)), False),
    ],
)
def test_a_sampler_that_may_refuse_is_asked(sampler: Sampler, light: bool) -> None:
    assert isinstance(Kept(sampler).light, LightSpans) is light


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "10"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "20"),
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "20"),
        ("OTEL_SDK_DISABLED", "true"),
    ],
)
def test_limits_hold(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert Kept().light is None


@pytest.fixture
def tracing(request: pytest.FixtureRequest) -> Iterator[Kept]:
    """Give a provider that all spans are made with, by the sampler of the test's parameter."""
    made = Kept(request.param)
    use_provider(made.provider)
    yield made
    use_provider(None)
    made.provider.shutdown()


@pytest.mark.parametrize("tracing", [DEFAULT_ON], indirect=True)
@pytest.mark.parametrize(
    ("flags", "recorded"), [("01", True), ("03", True), ("ff", True), ("00", False), ("02", False), ("fe", False)]
)
def test_sender_says_by_one_bit_whether_a_trace_is_recorded(tracing: Kept, flags: str, recorded: bool) -> None:
    headers = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-{flags}"}
    assert (copy_context().run(enter_sender, headers) is not None) is recorded


@pytest.mark.parametrize("tracing", [ParentBased(TraceIdRatioBased(0.3)), DEFAULT_ON], indirect=True)
def test_new_trace_is_recorded_where_its_sampler_says_so(tracing: Kept) -> None:
    """And what is below one that is not is left out, too."""

    def begin() -> tuple[Span | None, SpanContext]:
        context = enter_sender({})
        span = start_span("process", SpanKind.CONSUMER, {}, context if context is not None else get_current())
        return span, get_current_span(set_span_in_context(span) if span else None).get_span_context()

    begun = [copy_context().run(begin) for _ in range(200)]
    for span, ids in begun:
        said = tracing.provider.sampler.should_sample(Context(), ids.trace_id, "process").decision
        assert (said is Decision.RECORD_AND_SAMPLE) is ids.trace_flags.sampled is isinstance(span, LightSpan)
        assert ids.is_valid
        assert ids.trace_flags.random_trace_id
    assert len({ids.trace_id for _, ids in begun}) == 200


@pytest.mark.parametrize("tracing", [ALWAYS_ON], indirect=True)
def test_sampler_that_is_not_known_is_asked_for_each(tracing: Kept) -> None:
    context = copy_context().run(enter_sender, {})
    assert context == Context()
    left_out = enter_sender({"traceparent": f"00-{'a' * 32}-{'b' * 16}-00"})
    assert isinstance(start_span("process", SpanKind.CONSUMER, {}, left_out), SdkSpan)

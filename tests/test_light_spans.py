"""Light spans: what comes of them is what comes of the SDK's, whether anybody touches them or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path

import pytest
from opentelemetry.context import Context, attach
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.trace import (
    Span,
    SpanKind,
    StatusCode,
    get_current_span,
    set_span_in_context,
)

from faasbase.light_spans import LightSpan
from faasbase.otlp import SpanEncoder
from faasbase.redaction import Redactor
from tests.kept_spans import PARENT, SHARED, Kept


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
    spans = [kept.light.begin("process", SpanKind.CONSUMER, (SHARED, {}), Context(), 0xC3 << 64) for _ in range(2)]
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


@pytest.mark.parametrize("use", [nothing, touch])
def test_it_can_be_read_while_it_goes_on(kept: Kept, use: Callable[[Span], None]) -> None:
    usual, light = kept.usual(), kept.begin()
    for span in (usual, light):
        use(span)
    assert isinstance(usual, SdkSpan)
    assert told(light) == told(usual)
    light.end()
    shown = json.loads(light.to_json())
    assert (shown["name"], shown["attributes"]["id"], shown["end_time"] is None) == (light.name, "o-1", False)


def test_processors_are_told_of_each_span_once(kept: Kept) -> None:
    """One that marks the current span at each begin marks one that is touched, too."""
    begun: list[tuple[object, Context | None]] = []

    class Marking(SpanProcessor):
        def on_start(self, span: SdkSpan, parent_context: Context | None = None) -> None:
            begun.append((span, parent_context))
            get_current_span().set_attribute("marked", True)

    kept.provider.add_span_processor(Marking())

    def work(span: LightSpan) -> None:
        attach(set_span_in_context(span))
        span.set_attribute("one", 1)

    span = kept.begin()
    copy_context().run(work, span)
    span.end()
    assert [one for one, _ in begun] == [span]
    assert get_current_span(begun[0][1]).get_span_context() == PARENT
    assert len(kept.ended) == 1


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

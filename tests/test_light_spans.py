"""Light spans: what comes of them is what comes of the SDK's, whether anybody touches them or not."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from opentelemetry.context import Context
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import NonRecordingSpan, Span, SpanKind, StatusCode, get_current_span, set_span_in_context

from faasbase.events.envelope import Envelope
from faasbase.events.outcomes import SETTLED
from faasbase.events.records import Record
from faasbase.events.telemetry import process_span
from faasbase.light_spans import LightSpan
from faasbase.remote_spans import NewTrace
from faasbase.tracing import enter_sender, enter_span_below, use_provider
from tests.kept_spans import IDS, PARENT, SHARED, Kept


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


def told(span: ProtoSpan) -> ProtoSpan:
    """Return what *span* says but for its times, its own id and the order of its attributes."""
    copy = ProtoSpan()
    copy.CopyFrom(span)
    copy.ClearField("start_time_unix_nano")
    copy.ClearField("end_time_unix_nano")
    copy.ClearField("span_id")
    attributes = sorted(span.attributes, key=lambda one: one.key)
    copy.ClearField("attributes")
    copy.attributes.extend(attributes)
    return copy


def attributes_of(span: ProtoSpan) -> dict[str, object]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


@pytest.mark.parametrize("use", [nothing, touch])
def test_it_says_what_a_span_of_the_sdk_says(kept: Kept, use: Callable[[Span], None]) -> None:
    for span in (kept.usual(), kept.begin()):
        use(span)
        span.end()
        assert not span.is_recording()
    usual, light = kept.ended
    assert told(light) == told(usual)
    assert len(usual.attributes) >= 4
    assert 0 < light.start_time_unix_nano <= light.end_time_unix_nano
    assert light.span_id not in (bytes(8), usual.span_id)


def test_it_comes_from_where_those_of_the_sdk_come_from(kept: Kept) -> None:
    kept.usual().end()
    kept.begin().end()
    first, second = kept.sent.resource_spans
    assert first.resource == second.resource
    assert first.scope_spans[0].scope == second.scope_spans[0].scope


def test_its_ids_stay_the_same_when_it_is_touched(kept: Kept) -> None:
    span = kept.begin()
    ids = span.get_span_context()
    child = kept.tracer.start_span("child", set_span_in_context(span))
    span.set_attribute("one", 1)
    child.end()
    assert not span.end_noted("faas.event.outcome", "settled")
    span.end()
    span.end()
    inner, outer = kept.ended
    assert outer.span_id == ids.span_id.to_bytes(8, "big") == inner.parent_span_id
    assert span.get_span_context() == ids
    assert (ids.trace_id, ids.trace_flags, ids.is_remote) == (PARENT.trace_id, PARENT.trace_flags, False)
    assert attributes_of(outer).items() >= {"one": 1, "id": "o-1"}.items()


def test_first_span_of_a_trace_stays_the_first(kept: Kept) -> None:
    assert kept.light is not None
    place = NewTrace(0xC3 << 64, recorded=True)
    light = [kept.light.begin("process", SpanKind.CONSUMER, SHARED, {}, place) for _ in range(2)]
    light[0].set_attribute("one", 1)
    for span in light:
        span.end()
    usual = kept.tracer.start_span("process", Context())
    assert {span.get_span_context().trace_flags for span in (*light, usual)} == {0x03}
    assert [(span.parent_span_id, span.trace_id) for span in kept.ended] == [
        (b"", (0xC3 << 64).to_bytes(16, "big"))
    ] * 2


def test_what_comes_after_its_end_changes_nothing(kept: Kept) -> None:
    span = kept.begin()
    assert span.end_noted("faas.event.outcome", "settled")
    touch(span)
    span.end()
    span.end_noted("faas.event.outcome", "failed")
    [ended] = kept.ended
    assert attributes_of(ended) == {**SHARED, "id": "o-1", "size": 7, "faas.event.outcome": "settled"}
    assert (ended.name, len(ended.events)) == ("process orders", 0)


def readable(span: Span) -> dict[str, object]:
    """Return what those who know the SDK's spans read of one."""
    names = ("name", "kind", "parent", "status", "resource", "instrumentation_scope", "end_time")
    said = {name: getattr(span, name) for name in names}
    return {**said, **{name: len(getattr(span, name)) for name in ("events", "links")}, "all": dict(span.attributes)}  # type: ignore[attr-defined]


@pytest.mark.parametrize("use", [nothing, touch])
def test_it_can_be_read_while_it_goes_on(kept: Kept, use: Callable[[Span], None]) -> None:
    usual, light = kept.usual(), kept.begin()
    for span in (usual, light):
        use(span)
    said = readable(light)
    assert {**said, "status": None} == {**readable(usual), "status": None}
    assert not hasattr(light, "what_no_span_has")
    light.end()
    assert said["name"] == light.name
    assert json.loads(light.to_json())["end_time"]
    assert light.end_time == kept.ended[0].end_time_unix_nano
    assert len(kept.ended) == 1


def test_where_others_look_at_spans_there_are_none_but_the_sdks(kept: Kept) -> None:
    """A processor that is added later sees all that begins from then on, and nothing twice."""
    seen: list[str] = []

    class Looking(SpanProcessor):
        def on_start(self, span: SdkSpan, parent_context: Context | None = None) -> None:
            seen.append(f"start {span.name}")

    def begin(**headers: str) -> Span | None:
        parent = enter_sender(headers)
        return None if parent is None else enter_span_below(parent, "process", SpanKind.CONSUMER, {}, {})[0]

    use_provider(kept.provider)
    try:
        before = begin(traceparent=f"00-{IDS}-01")
        kept.provider.add_span_processor(Looking())
        after, root = begin(traceparent=f"00-{IDS}-01"), begin()
    finally:
        use_provider(None)
    assert [isinstance(span, SdkSpan) for span in (before, after, root)] == [False, True, True]
    for span in (before, after, root):
        assert span is not None
        span.end()
    assert seen == ["start process"] * 2
    assert len(kept.ended) == 3


def test_threads_that_touch_one_at_once_touch_the_same(kept: Kept) -> None:
    span = kept.begin()
    with ThreadPoolExecutor(8) as threads:
        for number in range(64):
            threads.submit(span.set_attribute, f"n{number}", number)
    span.end()
    [ended] = kept.ended
    assert attributes_of(ended).items() >= {f"n{number}": number for number in range(64)}.items()


def test_it_is_the_current_span_of_whoever_asks(kept: Kept) -> None:
    span = kept.begin()
    assert get_current_span(set_span_in_context(span)) is span
    assert isinstance(span, LightSpan)


@pytest.mark.parametrize("use", [nothing, touch])
def test_what_is_kept_for_exemplars_is_small(kept: Kept, use: Callable[[Span], None]) -> None:
    """Of a span that somebody has touched it is the ids: it may hold whatever was put into it."""
    record = Record("kafka", "orders", "orders/3", 41, b"{}", {"traceparent": f"00-{IDS}-01"})
    use_provider(kept.provider)
    try:
        process = process_span(record, Envelope({"type": "order.created", "extensions": {}}, b"{}"))
        assert process is not None
        span = get_current_span()
        use(span)
        left = process.end(SETTLED)
    finally:
        use_provider(None)
    assert left is not None
    assert left.get_span_context() == span.get_span_context()
    assert isinstance(left, NonRecordingSpan if use is touch else LightSpan)
    assert attributes_of(kept.ended[0])["faas.event.outcome"] == "settled"

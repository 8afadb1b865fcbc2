"""Which traces are recorded: what the sampler would say, without asking it each time."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import copy_context

import pytest
from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    DEFAULT_ON,
    Decision,
    ParentBased,
    ParentBasedTraceIdRatio,
    Sampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import (
    Span,
    SpanContext,
    SpanKind,
    get_current_span,
    set_span_in_context,
)

from faasbase.light_spans import LightSpan, LightSpans
from faasbase.sampling import rules_of
from faasbase.tracing import enter_sender, enter_span_below, use_provider
from tests.kept_spans import IDS, Kept, Picky


@pytest.mark.parametrize(
    ("sampler", "light"),
    [
        (DEFAULT_ON, True),
        (ParentBased(TraceIdRatioBased(0.1)), True),
        (ParentBasedTraceIdRatio(0.1), True),
        (ALWAYS_ON, False),
        (TraceIdRatioBased(0.1), False),
        (ParentBased(ALWAYS_ON, remote_parent_sampled=TraceIdRatioBased(0.1)), False),
        (ParentBased(DEFAULT_ON, remote_parent_sampled=ALWAYS_OFF), False),
        (Picky(ALWAYS_ON), False),
    ],
)
def test_a_sampler_that_may_refuse_is_asked(sampler: Sampler, light: bool) -> None:
    assert isinstance(Kept(sampler).light, LightSpans) is light


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "10"),
        ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "0"),
        ("OTEL_ATTRIBUTE_COUNT_LIMIT", "0"),
        ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "20"),
        ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "20"),
        ("OTEL_SDK_DISABLED", "true"),
    ],
)
def test_limits_hold(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    assert Kept().light is None


@pytest.mark.parametrize("name", ["parentbased_always_on", "parentbased_traceidratio", "parentbased_always_off", ""])
def test_samplers_that_a_setting_chooses_are_known(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Else each event costs twice as much."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("faasbase")
    rules = rules_of(tracer)
    assert rules is not None
    assert rules.records_sampled
    assert rules.leaves_out
    assert rules.new_below is not None


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
    ("traceparent", "recorded"),
    [
        *((f"00-{IDS}-{flags}", True) for flags in ("01", "03", "ff")),
        *((f"00-{IDS}-{flags}", False) for flags in ("00", "02", "fe")),
        # Later versions may have more behind it; what is none counts for nothing.
        *((f"01-{IDS}-{rest}", True) for rest in ("01", "01-0", "01-what-0")),
        (f"01-{IDS}-00-1", False),
        *(
            (wrong, True)
            for wrong in ("0", "", f"00-{IDS}-0", f"00-{IDS}-0g", f"00-{IDS}-00-0", f"00-{IDS.upper()}-00")
        ),
        *(
            (f"00-{wrong}-00", True)
            for wrong in (f"{'0' * 32}-{'b' * 16}", f"{'a' * 32}-{'0' * 16}", IDS.replace("a", "x"))
        ),
    ],
)
def test_sender_says_by_one_bit_whether_a_trace_is_recorded(tracing: Kept, traceparent: str, recorded: bool) -> None:
    """That a trace is not; where it says nothing that can be read a new one begins."""
    headers = {"traceparent": traceparent}
    assert (copy_context().run(enter_sender, headers) is not None) is recorded


@pytest.mark.parametrize("tracing", [ParentBasedTraceIdRatio(0.3), DEFAULT_ON], indirect=True)
def test_new_trace_is_recorded_where_its_sampler_says_so(tracing: Kept) -> None:
    """And what is below one that is not is left out, too."""

    def begin() -> tuple[Span | None, SpanContext]:
        parent = enter_sender({})
        span = None if parent is None else enter_span_below(parent, "process", SpanKind.CONSUMER, {}, {})[0]
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
    assert left_out is not None
    assert isinstance(enter_span_below(left_out, "process", SpanKind.CONSUMER, {}, {})[0], SdkSpan)


@pytest.mark.parametrize("tracing", [ParentBased(TraceIdRatioBased(0.0))], indirect=True)
@pytest.mark.parametrize("headers", [{}, {"traceparent": f"00-{IDS}-00"}])
def test_current_span_can_be_shown(tracing: Kept, headers: dict[str, str]) -> None:
    context, shown = copy_context().run(lambda: (enter_sender(headers), f"{get_current_span()}"))
    assert context is None
    assert shown.startswith(("NewTrace", "SendersSpan"))

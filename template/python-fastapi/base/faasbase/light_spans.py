"""
Spans of what happens thousands of times a second, for a fifth of the SDK's price: nearly all are never looked at.

They are for `otlp.py` to write; where anybody but the exporter wants to see spans, none are made.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from functools import partial
from time import time_ns
from typing import TYPE_CHECKING, Any, cast

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace import SpanLimits, SpanProcessor, SynchronousMultiSpanProcessor, Tracer, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import (
    INVALID_SPAN,
    INVALID_SPAN_CONTEXT,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from .remote_spans import NewTrace, SendersSpan
from .sampling import rules_of

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer as AnyTracer
    from opentelemetry.util.types import AnyValue, Attributes

    from .tracing import AttributeValue

    Shared = Mapping[str, AttributeValue]
    Own = dict[str, AttributeValue]

_FEW = 32
"""More attributes than a span has that nobody has touched."""
_NEW = TraceFlags(TraceFlags.SAMPLED | TraceFlags.RANDOM_TRACE_ID)


class SpanProcessors(SynchronousMultiSpanProcessor):
    """Those of a provider: *last*, which exports, and whatever others are added; while there are none, `take_light`."""

    def __init__(self, last: BatchSpanProcessor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        super().add_span_processor(last)
        self.last, self.take_light = last, True
        # What `on_end` does with spans that are sampled, as light ones always are.
        self.export = last._batch_processor.emit

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        self.take_light = False
        super().add_span_processor(span_processor)


class LightSpans:
    """
    Makes spans of *tracer*'s that its sampler is not asked for, since it is known what it would say.

    It takes all those below a remote parent that is sampled.  Where *sampled_below* is a number it takes those of new
    traces, too, of whose ids the lower half is below that.
    """

    def __init__(self, tracer: Tracer, processors: SpanProcessors, sampled_below: int | None) -> None:
        self.processors, self.sampled_below, self.lock = processors, sampled_below, threading.Lock()
        self._ids = _GivenIds()
        touched, shown = (TracerProvider(ALWAYS_ON, tracer.resource, False, id_generator=self._ids) for _ in range(2))
        touched.add_span_processor(processors.last)
        self._touched, self._shown = touched.get_tracer("faasbase"), shown.get_tracer("faasbase")
        self.begin = partial(LightSpan, self)
        """Begins a span below a sampled sender's, or in the place of the first one of a trace that is recorded."""

    def whole(self, span: LightSpan) -> SdkSpan:
        """Return *span* as the SDK has it, begun when it was; whoever calls has the lock."""
        self._ids.given = span.get_span_context()
        parent = set_span_in_context(span.below) if isinstance(span.below, SendersSpan) else Context()
        attributes = {**span.shared, **span.own}
        # One that has ended was exported already.
        tracer = self._shown if span.ended_at else self._touched
        return cast(SdkSpan, tracer.start_span(span.title, parent, span.kind, attributes, start_time=span.began_at))


def light_spans(tracer: AnyTracer) -> LightSpans | None:
    """Return what makes light spans of *tracer*'s; None where its sampler, or a limit, might have a say in them."""
    limits, rules = SpanLimits(), rules_of(tracer)
    most = limits.max_span_attributes
    limited = limits.max_span_attribute_length is not None or (most is not None and most < _FEW)
    if limited or not isinstance(tracer, Tracer) or rules is None or not rules.records_sampled:
        return None
    processors = tracer.span_processor
    return LightSpans(tracer, processors, rules.new_below) if isinstance(processors, SpanProcessors) else None


class LightSpan(Span):
    """
    A span that becomes one of the SDK's as soon as anybody does more with it than to end it.

    It is the one *below* its sender's, or the first of its trace.  Its attributes are those *shared* with many others
    and its *own*, text and numbers; it keeps both.
    """

    ended_at = 0
    """In nanoseconds since 1970; 0 while it goes on."""
    _ids: SpanContext | None = None
    _whole: SdkSpan | None = None

    def __init__(
        self,
        spans: LightSpans,
        title: str,
        kind: SpanKind,
        shared: Shared,
        own: Own,
        below: SendersSpan | NewTrace,
    ) -> None:
        self.title, self.kind, self.shared, self.own, self.below = title, kind, shared, own, below
        self.span_id = random.getrandbits(64) or 1
        self.began_at = time_ns()
        self._spans = spans

    def __getattr__(self, name: str) -> Any:
        # Whatever else the SDK's have: those who look at spans know those.
        if name.startswith("_"):
            raise AttributeError(name)
        with self._spans.lock:
            if self._whole is None:
                self._whole = self._spans.whole(self)
                if self.ended_at:
                    self._whole.end(self.ended_at)
            whole = self._whole
        return getattr(whole, name)

    def get_span_context(self) -> SpanContext:
        if self._ids is None:
            below = self.below
            if isinstance(below, NewTrace):
                trace_id, flags = below.trace_id, _NEW
            else:
                parent = below.get_span_context()
                trace_id, flags = parent.trace_id, TraceFlags(parent.trace_flags & _NEW)
            self._ids = SpanContext(trace_id, self.span_id, False, flags)
        return self._ids

    def is_recording(self) -> bool:
        return not self.ended_at

    def end_noted(self, key: str, value: str) -> bool:
        """End it with one attribute more, which is within every limit; False if it goes on, since it was touched."""
        with self._spans.lock:
            if self.ended_at or self._whole is not None:
                return False
            self.own[key] = value
            self.ended_at = time_ns()
        self._spans.processors.export(self)  # type: ignore[arg-type] # it passes it on as it is
        return True

    def end(self, end_time: int | None = None) -> None:
        with self._spans.lock:
            if self.ended_at:
                return
            self.ended_at = end_time or time_ns()
            whole = self._whole
        if whole is not None:
            whole.end(self.ended_at)
        else:
            self._spans.processors.export(self)  # type: ignore[arg-type] # as above

    def set_attribute(self, key: str, value: AnyValue) -> None:
        self._touched().set_attribute(key, value)

    def set_attributes(self, attributes: Mapping[str, AnyValue]) -> None:
        self._touched().set_attributes(attributes)

    def add_event(self, name: str, attributes: Attributes = None, timestamp: int | None = None) -> None:
        self._touched().add_event(name, attributes, timestamp)

    def add_link(self, context: SpanContext, attributes: Attributes = None) -> None:
        self._touched().add_link(context, attributes)

    def update_name(self, name: str) -> None:
        self._touched().update_name(name)

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        self._touched().set_status(status, description)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Attributes = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        self._touched().record_exception(exception, attributes, timestamp, escaped)

    def _touched(self) -> Span:
        with self._spans.lock:
            if self.ended_at:
                return INVALID_SPAN
            if self._whole is None:
                self._whole = self._spans.whole(self)
            return self._whole


class _GivenIds(RandomIdGenerator):
    """Gives spans the ids that they have already."""

    given = INVALID_SPAN_CONTEXT

    def generate_trace_id(self) -> int:
        return self.given.trace_id

    def generate_span_id(self) -> int:
        return self.given.span_id

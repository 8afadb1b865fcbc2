"""Spans of what happens thousands of times a second, for a fifth of the SDK's price: nearly all are never looked at."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping, Sequence
from time import time_ns
from typing import TYPE_CHECKING, cast

from opentelemetry.context import Context
from opentelemetry.sdk.trace import Event, ReadableSpan, SpanLimits, SpanProcessor, Tracer, TracerProvider
from opentelemetry.sdk.trace import Span as SdkSpan
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    INVALID_SPAN,
    INVALID_SPAN_CONTEXT,
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

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


class LightSpans:
    """
    Makes spans of *tracer*'s that its sampler is not asked for, since it is known what it would say.

    It takes all those below a remote parent that is sampled.  Where *sampled_below* is a number it takes those of new
    traces, too, of whose ids the lower half is below that.
    """

    def __init__(self, tracer: Tracer, sampled_below: int | None) -> None:
        self.sampled_below = sampled_below
        self.resource, self.processor, self.lock = tracer.resource, tracer.span_processor, threading.Lock()
        self.scope = InstrumentationScope("faasbase", "")
        self._ids = _GivenIds()
        provider = TracerProvider(ALWAYS_ON, self.resource, False, id_generator=self._ids)
        provider.add_span_processor(_Ends(self.processor))
        self._tracer = provider.get_tracer("faasbase")

    def begin(
        self,
        name: str,
        kind: SpanKind,
        attributes: tuple[Shared, Own],
        context: Context,
        trace_id: int,
        parent: SpanContext | None = None,
    ) -> LightSpan:
        """
        Begin a span in *context*, below *parent* or as the first one of its trace.

        Its *attributes* are text and numbers, and it keeps its own ones.
        """
        flags = _NEW if parent is None else TraceFlags(parent.trace_flags & _NEW)
        ids = SpanContext(trace_id, random.getrandbits(64) or 1, False, flags)
        span = LightSpan(self, name, kind, attributes, ids, parent)
        self.processor.on_start(span, context)  # type: ignore[arg-type] # it takes all that a span of the SDK's does
        return span

    def whole(self, span: LightSpan) -> SdkSpan:
        """Return *span* as the SDK has it, begun when it was; whoever calls has the lock."""
        self._ids.given = span.get_span_context()
        parent = set_span_in_context(NonRecordingSpan(span.parent)) if span.parent else Context()
        whole = self._tracer.start_span(span.name, parent, span.kind, span.attributes, start_time=span.start_time)
        return cast(SdkSpan, whole)


def light_spans(tracer: AnyTracer) -> LightSpans | None:
    """Return what makes light spans of *tracer*'s; None where its sampler, or a limit, might have a say in them."""
    limits, rules = SpanLimits(), rules_of(tracer)
    most = limits.max_span_attributes
    limited = limits.max_span_attribute_length is not None or (most is not None and most < _FEW)
    if limited or not isinstance(tracer, Tracer) or rules is None or not rules.records_sampled:
        return None
    return LightSpans(tracer, rules.new_below)


class LightSpan(ReadableSpan, Span):
    """A span that becomes one of the SDK's as soon as anybody does more with it than to read and to `note`."""

    def __init__(
        self,
        spans: LightSpans,
        name: str,
        kind: SpanKind,
        attributes: tuple[Shared, Own],
        ids: SpanContext,
        parent: SpanContext | None,
    ) -> None:
        super().__init__(
            name, ids, parent, spans.resource, kind=kind, start_time=time_ns(), instrumentation_scope=spans.scope
        )
        self._spans, self._ids = spans, ids
        self.shared, self.own = attributes
        """What many spans say in the same words, and what only this one does."""
        self._whole: SdkSpan | None = None
        self._ended_at: int | None = None

    @property
    def attributes(self) -> Attributes:
        """All of them."""
        return {**self.shared, **self.own} if self._whole is None else self._whole.attributes or {}

    @property
    def name(self) -> str:
        return super().name if self._whole is None else self._whole.name

    @property
    def status(self) -> Status:
        return super().status if self._whole is None else self._whole.status

    @property
    def events(self) -> Sequence[Event]:
        return () if self._whole is None else self._whole.events

    @property
    def links(self) -> Sequence[Link]:
        return () if self._whole is None else self._whole.links

    def to_json(self, indent: int | None = 4) -> str:
        """Return it as the SDK shows its own."""
        told = self._whole or ReadableSpan(
            *(self.name, self._ids, self.parent, self.resource, self.attributes),
            kind=self.kind,
            start_time=self.start_time,
            end_time=self.end_time,
            instrumentation_scope=self.instrumentation_scope,
        )
        shown: str = told.to_json(indent)
        return shown

    @property
    def end_time(self) -> int | None:
        """When it ended, in nanoseconds since 1970."""
        return self._ended_at

    def get_span_context(self) -> SpanContext:
        return self._ids

    def is_recording(self) -> bool:
        return self._ended_at is None

    @property
    def is_touched(self) -> bool:
        """Whether it is one of the SDK's by now."""
        return self._whole is not None

    def note(self, key: str, value: str) -> None:
        """Set an attribute that is within every limit."""
        with self._spans.lock:
            if (whole := self._whole) is None:
                self.own[key] = value
                return
        whole.set_attribute(key, value)

    def end(self, end_time: int | None = None) -> None:
        with self._spans.lock:
            if self._ended_at is not None:
                return
            self._ended_at = end_time if end_time is not None else time_ns()
        if self._whole is None:
            self._spans.processor.on_end(self)
        else:
            self._whole.end(self._ended_at)

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
            if self._ended_at is not None and self._whole is None:
                return INVALID_SPAN
            if self._whole is None:
                self._whole = self._spans.whole(self)
            return self._whole


class _Ends(SpanProcessor):
    """Tells *processor* of the ends of spans, of whose beginning it was told when they were light."""

    def __init__(self, processor: SpanProcessor) -> None:
        self._processor = processor

    def on_end(self, span: ReadableSpan) -> None:
        self._processor.on_end(span)


class _GivenIds(RandomIdGenerator):
    """Gives spans the ids that they have already."""

    given = INVALID_SPAN_CONTEXT

    def generate_trace_id(self) -> int:
        return self.given.trace_id

    def generate_span_id(self) -> int:
        return self.given.span_id

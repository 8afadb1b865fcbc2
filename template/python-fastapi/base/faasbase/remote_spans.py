"""Spans of whoever has sent a message, and of traces that begin with one: read, or made, when somebody asks."""

from __future__ import annotations

import random
import re

from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_NOT_SAMPLED = frozenset("02468ace")
"""The last of its characters, where the lowest bit of the flags is not set."""


def is_plain(traceparent: str) -> bool:
    """Tell whether `SendersSpan` can read *traceparent*: it is valid, and of the first version."""
    return _TRACEPARENT.fullmatch(traceparent) is not None


def is_sampled(traceparent: str) -> bool:
    """Tell whether *traceparent*, one that `is_plain`, says that its trace is recorded."""
    return traceparent[-1] not in _NOT_SAMPLED


class SendersSpan(NonRecordingSpan):
    """The span that *traceparent*, one that `is_plain`, names."""

    def __init__(self, traceparent: str) -> None:
        self._parent = traceparent
        self._read: SpanContext | None = None

    def get_span_context(self) -> SpanContext:
        if self._read is None:
            parent = self._parent
            flags = TraceFlags(int(parent[53:], 16))
            self._read = SpanContext(int(parent[3:35], 16), int(parent[36:52], 16), True, flags)
        return self._read

    def __repr__(self) -> str:
        return f"SendersSpan({self._parent})"


class NewTrace(NonRecordingSpan):
    """The place of the first span of a trace that is *recorded*, or that span itself where it is not."""

    def __init__(self, trace_id: int, recorded: bool) -> None:
        self.trace_id, self.recorded = trace_id, recorded
        self._made: SpanContext | None = None

    def get_span_context(self) -> SpanContext:
        if self._made is None:
            flags = TraceFlags(TraceFlags.RANDOM_TRACE_ID)
            self._made = SpanContext(self.trace_id, random.getrandbits(64) or 1, False, flags)
        return self._made

    def __repr__(self) -> str:
        return f"NewTrace({self.trace_id:032x})"

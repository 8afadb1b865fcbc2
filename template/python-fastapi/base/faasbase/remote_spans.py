"""Spans of whoever has sent a message, and of traces that begin with one: read, or made, when somebody asks."""

from __future__ import annotations

import random
import re

from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

_is_traceparent = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch
_NOT_SAMPLED = frozenset("02468ace")
"""The last of its characters, where the lowest bit of the flags is not set."""


class SendersSpan(NonRecordingSpan):
    """The span that a valid *traceparent* of the first version names; `senders_span` makes them."""

    _read: SpanContext | None = None

    def __init__(self, traceparent: str) -> None:
        self._parent = traceparent
        self.sampled = traceparent[-1] not in _NOT_SAMPLED
        """Whether its trace is recorded."""

    def get_span_context(self) -> SpanContext:
        if self._read is None:
            parent = self._parent
            flags = TraceFlags(int(parent[53:], 16))
            self._read = SpanContext(int(parent[3:35], 16), int(parent[36:52], 16), True, flags)
        return self._read

    @property
    def ids(self) -> tuple[bytes, bytes]:
        """Those of its trace and its own."""
        return bytes.fromhex(self._parent[3:35]), bytes.fromhex(self._parent[36:52])

    def __repr__(self) -> str:
        return f"SendersSpan({self._parent})"


def senders_span(traceparent: str) -> SendersSpan | None:
    """Return the span that *traceparent* names; None for one that is not valid, or of a later version."""
    return SendersSpan(traceparent) if _is_traceparent(traceparent) else None


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

    @property
    def ids(self) -> tuple[bytes, bytes]:
        """That of its trace, and none for what is above its first span."""
        return self.trace_id.to_bytes(16, "big"), b""

    def __repr__(self) -> str:
        return f"NewTrace({self.trace_id:032x})"

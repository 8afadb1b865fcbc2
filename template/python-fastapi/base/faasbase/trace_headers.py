"""The trace context of a call, however its caller has written it, as W3C's ``traceparent``."""

from __future__ import annotations

import re

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_B3_TRACE = re.compile(rb"(?:[0-9a-f]{16}){1,2}")
_B3_SPAN = re.compile(rb"[0-9a-f]{16}")
_CONTEXT_HEADERS = frozenset(
    (
        b"traceparent",
        b"x-kafka-traceparent",
        b"x-kafka-tracestate",
        b"b3",
        b"x-b3-traceid",
        b"x-b3-spanid",
        b"x-b3-sampled",
        b"x-b3-flags",
    )
)


def with_traceparent(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """
    Return *headers* with the caller's trace context as one W3C ``traceparent``, however the caller wrote it.

    Known are W3C, B3 in one header or several, and the Kafka connector's ``X-Kafka-Traceparent``, in this order.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _CONTEXT_HEADERS:
            found.setdefault(name, value)
    if not found or _TRACEPARENT.fullmatch(found.get(b"traceparent", b"")):
        return headers
    parent = _from_kafka(found) or _from_b3(found)
    kept = [header for header in headers if header[0] != b"traceparent"]
    if parent is None:
        return kept
    state = found.get(b"x-kafka-tracestate")
    return [*kept, (b"traceparent", parent), *([(b"tracestate", state)] if state else [])]


def _from_kafka(found: dict[bytes, bytes]) -> bytes | None:
    value = found.get(b"x-kafka-traceparent", b"")
    return value if _TRACEPARENT.fullmatch(value) else None


def _from_b3(found: dict[bytes, bytes]) -> bytes | None:
    """Translate B3 (https://github.com/openzipkin/b3-propagation) to a traceparent."""
    if single := found.get(b"b3"):
        parts = [*single.split(b"-"), b"", b""]
        trace_id, span_id, sampled = parts[0], parts[1], parts[2]
    else:
        trace_id, span_id = found.get(b"x-b3-traceid", b""), found.get(b"x-b3-spanid", b"")
        sampled = b"d" if found.get(b"x-b3-flags") == b"1" else found.get(b"x-b3-sampled", b"1")
    trace_id, span_id = trace_id.lower(), span_id.lower()
    if not _B3_TRACE.fullmatch(trace_id) or not _B3_SPAN.fullmatch(span_id):
        return None
    flags = b"00" if sampled in (b"0", b"false") else b"01"
    return b"00-" + trace_id.rjust(32, b"0") + b"-" + span_id + b"-" + flags

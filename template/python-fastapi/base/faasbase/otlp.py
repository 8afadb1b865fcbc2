"""
Spans as OTLP has them, redacted as they are written.

Most of what the spans of a batch say is the same in all of them, and is redacted and written once: the library's own
encoder takes several times as long, in a thread that holds up the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, SpanFlags, Status
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from .redaction import Redactor

_SPANS = ScopeSpans.SPANS_FIELD_NUMBER << 3 | 2
_SCOPE_SPANS = ResourceSpans.SCOPE_SPANS_FIELD_NUMBER << 3 | 2
_RESOURCE_SPANS = ExportTraceServiceRequest.RESOURCE_SPANS_FIELD_NUMBER << 3 | 2
_KINDS = {kind: Span.SpanKind.Value(f"SPAN_KIND_{kind.name}") for kind in SpanKind}
_CODES = {code: Status.StatusCode.Value(f"STATUS_CODE_{code.name}") for code in StatusCode}
_LOCAL = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE = _LOCAL | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK


class SpanEncoder:
    """Writes one batch of spans."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._written: dict[tuple[str, type, Any], bytes] = {}
        self._names: dict[str, str] = {}

    def encode(self, spans: Sequence[ReadableSpan]) -> bytes:
        """Return the body of an ``ExportTraceServiceRequest`` with *spans*."""
        sources: dict[int, dict[int, list[ReadableSpan]]] = {}
        for span in spans:
            scopes = sources.setdefault(id(span.resource), {})
            scopes.setdefault(id(span.instrumentation_scope), []).append(span)
        return b"".join(_field(_RESOURCE_SPANS, self._resource(list(scopes.values()))) for scopes in sources.values())

    def _resource(self, scopes: Sequence[Sequence[ReadableSpan]]) -> bytes:
        """Write the spans of *scopes*, which have one resource."""
        resource = scopes[0][0].resource
        described = Resource(attributes=self._attributes(resource.attributes))
        head: bytes = ResourceSpans(resource=described, schema_url=resource.schema_url).SerializeToString()
        return head + b"".join(_field(_SCOPE_SPANS, self._scope(spans)) for spans in scopes)

    def _scope(self, spans: Sequence[ReadableSpan]) -> bytes:
        """Write *spans*, which have one scope."""
        head = ScopeSpans(scope=InstrumentationScope())
        if scope := spans[0].instrumentation_scope:
            attributes = self._attributes(scope.attributes)
            described = InstrumentationScope(name=scope.name, version=scope.version or "", attributes=attributes)
            head = ScopeSpans(scope=described, schema_url=scope.schema_url or "")
        written: bytes = head.SerializeToString()
        return written + b"".join(_field(_SPANS, self._span(span)) for span in spans)

    def _span(self, span: ReadableSpan) -> bytes:
        ids, parent, status = span.context, span.parent, span.status
        head = Span(
            trace_id=ids.trace_id.to_bytes(16, "big"),
            span_id=ids.span_id.to_bytes(8, "big"),
            trace_state=ids.trace_state.to_header() if ids.trace_state else "",
            parent_span_id=parent.span_id.to_bytes(8, "big") if parent else b"",
            name=self._text(span.name),
            kind=_KINDS[span.kind],
            start_time_unix_nano=span.start_time or 0,
            end_time_unix_nano=span.end_time or 0,
            dropped_attributes_count=span.dropped_attributes,
            flags=_flags(parent),
            status=Status(code=_CODES[status.status_code], message=self._text(status.description or "")),
        )
        if span.events or span.links:
            self._add_more(head, span)
        written: bytes = head.SerializeToString()
        return written + self._written_attributes(span)

    def _add_more(self, head: Span, span: ReadableSpan) -> None:
        for event in span.events:
            attributes = self._attributes(event.attributes)
            head.events.add(name=event.name, time_unix_nano=event.timestamp, attributes=attributes)
        for link in span.links:
            ids = link.context
            head.links.add(
                trace_id=ids.trace_id.to_bytes(16, "big"),
                span_id=ids.span_id.to_bytes(8, "big"),
                attributes=self._attributes(link.attributes),
                flags=_flags(ids),
            )
        head.dropped_events_count, head.dropped_links_count = span.dropped_events, span.dropped_links

    def _written_attributes(self, span: ReadableSpan) -> bytes:
        """Write the attributes as fields of their *span*: a message's fields may follow those written before."""
        known, parts = self._written, []
        # What spans hold is slow to go through itself.
        attributes: Any = span.attributes or {}
        for name, value in attributes.copy().items():
            kind = type(value)
            if kind is not str and kind is not int and kind is not bool:
                parts.append(Span(attributes=[self._attribute(name, value)]).SerializeToString())
                continue
            if (part := known.get((name, kind, value))) is None:
                part = known[name, kind, value] = Span(attributes=[self._attribute(name, value)]).SerializeToString()
            parts.append(part)
        return b"".join(parts)

    def _attributes(self, attributes: Mapping[str, Any] | None) -> list[KeyValue]:
        return [self._attribute(name, value) for name, value in (attributes or {}).items()]

    def _attribute(self, name: str, value: Any) -> KeyValue:
        return KeyValue(key=name, value=_any(self._redactor.value(name, value)))

    def _text(self, text: str) -> str:
        if (known := self._names.get(text)) is None:
            known = self._names[text] = self._redactor.text(text)
        return known


def _any(value: Any) -> AnyValue:
    """Return what the redactor has left of a value: text, numbers, lists and mappings."""
    match value:
        case None:
            return AnyValue()
        case bool():
            return AnyValue(bool_value=value)
        case int():
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=map(_any, value)))
        case dict():
            values = [KeyValue(key=name, value=_any(one)) for name, one in value.items()]
            return AnyValue(kvlist_value=KeyValueList(values=values))
        case _:
            return AnyValue(string_value=str(value))


def _flags(ids: SpanContext | None) -> int:
    return _REMOTE if ids is not None and ids.is_remote else _LOCAL


def _field(tag: int, content: bytes) -> bytes:
    """Write *content* as one field of a message: its tag and its size, seven bits a byte, go before it."""
    size, head = len(content), bytearray((tag,))
    while size > 0x7F:
        head.append(size & 0x7F | 0x80)
        size >>= 7
    head.append(size)
    return bytes(head) + content

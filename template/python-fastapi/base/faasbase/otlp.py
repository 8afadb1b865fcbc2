"""
Spans as OTLP has them, redacted as they are written.

Most of what the spans of a batch say is the same in all of them, and is redacted and written once; what differs is
written straight as the bytes of its fields.  The library's own encoder takes ten times as long, in a thread that holds
up the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, SpanFlags, Status
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from .light_spans import LightSpan
from .redaction import Redactor

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""How the value of a field is written."""
_KINDS = {kind: Span.SpanKind.Value(f"SPAN_KIND_{kind.name}") for kind in SpanKind}
_CODES = {code: Status.StatusCode.Value(f"STATUS_CODE_{code.name}") for code in StatusCode}
_LOCAL = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE = _LOCAL | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
_LARGEST_INT = 2**63 - 1


def _varint(number: int) -> bytes:
    """Write *number*, not below zero, seven bits a byte."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _tag(message: Any, field: str, kind: int) -> bytes:
    number: int = message.DESCRIPTOR.fields_by_name[field].number
    return _varint(number << 3 | kind)


_SIZES = [_varint(size) for size in range(1024)]
_SPANS = _tag(ScopeSpans, "spans", _BYTES)
_SCOPE_SPANS = _tag(ResourceSpans, "scope_spans", _BYTES)
_RESOURCE_SPANS = _tag(ExportTraceServiceRequest, "resource_spans", _BYTES)
_ATTRIBUTES, _KEY, _VALUE = (
    _tag(Span, "attributes", _BYTES),
    _tag(KeyValue, "key", _BYTES),
    _tag(KeyValue, "value", _BYTES),
)
_STRING, _INT = _tag(AnyValue, "string_value", _BYTES), _tag(AnyValue, "int_value", _VARINT)
_NAME, _STATUS = _tag(Span, "name", _BYTES), _tag(Span, "status", _BYTES)
_TRACE_ID, _SPAN_ID = _tag(Span, "trace_id", _BYTES) + _SIZES[16], _tag(Span, "span_id", _BYTES) + _SIZES[8]
_PARENT_ID, _KIND = _tag(Span, "parent_span_id", _BYTES) + _SIZES[8], _tag(Span, "kind", _VARINT)
_START, _END = _tag(Span, "start_time_unix_nano", _FIXED64), _tag(Span, "end_time_unix_nano", _FIXED64)
_FLAGS = _tag(Span, "flags", _FIXED32)
_head = Struct("<2s16s2s8scQcQ2sIc").pack


class SpanEncoder:
    """Writes one batch of spans."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._written: dict[tuple[str, type, Any], bytes] = {}
        self._heads: dict[tuple[str, SpanKind, StatusCode, str | None], bytes] = {}
        self._keys: dict[str, bytes] = {}
        self._shared: dict[int, bytes] = {}

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
        ids, parent = span.context, span.parent
        fixed = _head(
            *(_TRACE_ID, ids.trace_id.to_bytes(16, "big"), _SPAN_ID, ids.span_id.to_bytes(8, "big")),
            *(_START, span.start_time or 0, _END, span.end_time or 0, _FLAGS, _flags(parent), _KIND),
        )
        parts = [fixed, self._described(span)]
        if parent:
            parts += (_PARENT_ID, parent.span_id.to_bytes(8, "big"))
        if _has_more(span):
            parts.append(self._more(span))
        parts.append(self._attributes_of(span))
        return b"".join(parts)

    def _described(self, span: ReadableSpan) -> bytes:
        """Write the value of the kind, which comes first, the name and the status."""
        status = span.status
        key = span.name, span.kind, status.status_code, status.description
        if (head := self._heads.get(key)) is None:
            message = _utf8(self._redactor.text(status.description or "")).decode()
            told: bytes = Status(code=_CODES[status.status_code], message=message).SerializeToString()
            name = _utf8(self._redactor.text(span.name))
            head = self._heads[key] = _SIZES[_KINDS[span.kind]] + _field(_NAME, name) + _field(_STATUS, told)
        return head

    def _more(self, span: ReadableSpan) -> bytes:
        """Write what few spans have."""
        state = span.context.trace_state
        more = Span(
            trace_state=state.to_header() if state else "",
            dropped_attributes_count=span.dropped_attributes,
            dropped_events_count=span.dropped_events,
            dropped_links_count=span.dropped_links,
        )
        for event in span.events:
            attributes = self._attributes(event.attributes)
            name = _utf8(self._redactor.text(event.name)).decode()
            more.events.add(name=name, time_unix_nano=event.timestamp, attributes=attributes)
        for link in span.links:
            ids = link.context
            more.links.add(
                trace_id=ids.trace_id.to_bytes(16, "big"),
                span_id=ids.span_id.to_bytes(8, "big"),
                attributes=self._attributes(link.attributes),
                flags=_flags(ids),
            )
        written: bytes = more.SerializeToString()
        return written

    def _attributes_of(self, span: ReadableSpan) -> bytes:
        """Write the attributes as fields of their *span*: the fields of a message may come one by one."""
        if not isinstance(span, LightSpan):
            # What spans hold is slow to go through itself.
            attributes: Any = span.attributes or {}
            return self._written_attributes(attributes.copy())
        shared = span.shared
        if (written := self._shared.get(id(shared))) is None:
            written = self._shared[id(shared)] = self._written_attributes(shared)
        return written + self._written_attributes(span.own)

    def _written_attributes(self, attributes: Mapping[str, Any]) -> bytes:
        known, parts = self._written, []
        for name, value in attributes.items():
            kind = type(value)
            if kind is not str and kind is not int and kind is not bool:
                parts.append(Span(attributes=[self._attribute(name, value)]).SerializeToString())
                continue
            if (part := known.get((name, kind, value))) is None:
                part = known[name, kind, value] = self._written_attribute(name, value)
            parts.append(part)
        return b"".join(parts)

    def _written_attribute(self, name: str, value: str | int) -> bytes:
        shown = self._redactor.value(name, value)
        if type(shown) is str:
            written = _field(_STRING, _utf8(shown))
        elif type(shown) is int and 0 <= shown <= _LARGEST_INT:
            written = _INT + _varint(shown)
        else:
            written = _any(shown).SerializeToString()
        if (key := self._keys.get(name)) is None:
            key = self._keys[name] = _field(_KEY, _utf8(self._redactor.text(name)))
        return _field(_ATTRIBUTES, key + _field(_VALUE, written))

    def _attributes(self, attributes: Mapping[str, Any] | None) -> list[KeyValue]:
        return [self._attribute(name, value) for name, value in (attributes or {}).items()]

    def _attribute(self, name: str, value: Any) -> KeyValue:
        return KeyValue(key=_utf8(self._redactor.text(name)).decode(), value=_any(self._redactor.value(name, value)))


def _has_more(span: ReadableSpan) -> bool:
    """Tell whether *span* has what few have."""
    if isinstance(span, LightSpan) and not span.is_touched:
        return False
    dropped = span.dropped_attributes or span.dropped_events or span.dropped_links
    return bool(span.events or span.links or span.context.trace_state or dropped)


def _any(value: Any) -> AnyValue:
    """Return what the redactor has left of a value: text, numbers, lists and mappings."""
    match value:
        case None:
            return AnyValue()
        case bool():
            return AnyValue(bool_value=value)
        case int() if -_LARGEST_INT <= value <= _LARGEST_INT:
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=map(_any, value)))
        case dict():
            values = [KeyValue(key=_utf8(name).decode(), value=_any(one)) for name, one in value.items()]
            return AnyValue(kvlist_value=KeyValueList(values=values))
        case _:
            return AnyValue(string_value=_utf8(str(value)).decode())


def _utf8(text: str) -> bytes:
    """Write *text*, in which there may be halves of surrogate pairs: one must not lose all spans of its batch."""
    return text.encode("utf-8", "backslashreplace")


def _flags(ids: SpanContext | None) -> int:
    return _REMOTE if ids is not None and ids.is_remote else _LOCAL


def _field(tag: bytes, content: bytes) -> bytes:
    """Write *content* as a field of a message: the tag and its size go before it."""
    size = len(content)
    return tag + (_SIZES[size] if size < len(_SIZES) else _varint(size)) + content

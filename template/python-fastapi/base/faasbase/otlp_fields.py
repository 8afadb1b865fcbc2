"""
Fields of OTLP's messages as bytes, every text in them redacted.

The library's own encoder takes ten times as long, and holds up the event loop, whichever thread it runs in.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, SpanFlags
from opentelemetry.trace import SpanKind

from .redaction import Redactor

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""How the value of a field is written."""
_LOCAL = SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
_REMOTE = _LOCAL | SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
_LARGEST_INT = 2**63 - 1


def _varint(number: int) -> bytes:
    """Write *number*, not below zero, seven bits a byte."""
    if number < 1 << 7:
        return bytes((number,))
    if number < 1 << 14:
        return bytes((number & 0x7F | 0x80, number >> 7))
    return bytes((number & 0x7F | 0x80, number >> 7 & 0x7F | 0x80)) + _varint(number >> 14)


def _tag(message: Any, field: str, kind: int) -> bytes:
    number: int = message.DESCRIPTOR.fields_by_name[field].number
    return _varint(number << 3 | kind)


_SIZES = [_varint(size) for size in range(1024)]
SPANS = _tag(ScopeSpans, "spans", _BYTES)
SCOPE_SPANS = _tag(ResourceSpans, "scope_spans", _BYTES)
RESOURCE_SPANS = _tag(ExportTraceServiceRequest, "resource_spans", _BYTES)
NAME, STATUS = _tag(Span, "name", _BYTES), _tag(Span, "status", _BYTES)
PARENT_ID = _tag(Span, "parent_span_id", _BYTES) + _SIZES[8]
KINDS = {
    kind: _tag(Span, "kind", _VARINT) + _varint(Span.SpanKind.Value(f"SPAN_KIND_{kind.name}")) for kind in SpanKind
}
_ATTRIBUTES, _KEY, _VALUE = (
    _tag(Span, "attributes", _BYTES),
    _tag(KeyValue, "key", _BYTES),
    _tag(KeyValue, "value", _BYTES),
)
_STRING, _INT = _tag(AnyValue, "string_value", _BYTES), _tag(AnyValue, "int_value", _VARINT)
_TRACE_ID, _SPAN_ID = _tag(Span, "trace_id", _BYTES) + _SIZES[16], _tag(Span, "span_id", _BYTES) + _SIZES[8]
_START, _END = _tag(Span, "start_time_unix_nano", _FIXED64), _tag(Span, "end_time_unix_nano", _FIXED64)
_FLAGS = _tag(Span, "flags", _FIXED32)
_head = Struct("<2s16s2s8scQcQ2sI").pack


def field(tag: bytes, content: bytes) -> bytes:
    """Write *content* as a field of a message: the tag and its size go before it."""
    return tag + _size(len(content)) + content


def span_head(trace_id: bytes, span_id: bytes, began_at: int, ended_at: int, *, below_remote: bool) -> bytes:
    """Write the fields of a span that are as long in all of them; times are nanoseconds since 1970."""
    flags = span_flags(remote=below_remote)
    return _head(_TRACE_ID, trace_id, _SPAN_ID, span_id, _START, began_at, _END, ended_at, _FLAGS, flags)


def span_flags(*, remote: bool) -> int:
    """Return what tells whether a span is another process' one."""
    return _REMOTE if remote else _LOCAL


def utf8(text: str) -> bytes:
    """Write *text*, in which there may be halves of surrogate pairs: one must not lose all spans of its batch."""
    return text.encode("utf-8", "backslashreplace")


def writable(text: str) -> str:
    """Return *text* as the library can write it, too."""
    return utf8(text).decode()


class _Key:
    """The name of attributes, written as all that comes before their values."""

    def __init__(self, written: bytes, masked: bool) -> None:
        self._written = written
        self.masked = masked
        """Whether the values might be secrets, whatever they are."""
        self.texts: dict[str, bytes] = {}
        """Whole attributes, by texts that were their values."""
        self._before_text: dict[int, bytes] = {}
        self._before_int: dict[int, bytes] = {}
        """By the size of the value."""

    def write_text(self, text: bytes) -> bytes:
        """Write a whole attribute."""
        size = len(text)
        if (before := self._before_text.get(size)) is None:
            before = self._before_text[size] = self._before(_STRING + _size(size), size)
        return before + text

    def write_int(self, number: bytes) -> bytes:
        """Write a whole attribute."""
        size = len(number)
        if (before := self._before_int.get(size)) is None:
            before = self._before_int[size] = self._before(_INT, size)
        return before + number

    def _before(self, tag: bytes, size: int) -> bytes:
        head = self._written + _size(len(tag) + size) + tag
        return _ATTRIBUTES + _size(len(head) + size) + head


class AttributeWriter:
    """Writes attributes redacted by *redactor*; what most of them say again it redacts once."""

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._keys: dict[str, _Key] = {}

    def fields(self, attributes: Mapping[str, Any]) -> bytes:
        """Write *attributes* as fields of their span: those of a message may come one by one."""
        keys, redacted, parts = self._keys, self._redactor.text, []
        for name, value in attributes.items():
            key = keys.get(name) or self._key(name)
            kind = type(value)
            if kind is str and not key.masked:
                if (part := key.texts.get(value)) is None:
                    part = key.texts[value] = key.write_text(utf8(redacted(value)))
            elif kind is int and not key.masked and 0 <= value <= _LARGEST_INT:
                part = key.write_int(_varint(value))
            else:
                part = Span(attributes=[self._message(name, value)]).SerializeToString()
            parts.append(part)
        return b"".join(parts)

    def messages(self, attributes: Mapping[str, Any] | None) -> list[KeyValue]:
        """Write *attributes* as messages of the library's."""
        return [self._message(name, value) for name, value in (attributes or {}).items()]

    def _key(self, name: str) -> _Key:
        written = field(_KEY, utf8(self._redactor.text(name))) + _VALUE
        key = self._keys[name] = _Key(written, self._redactor.masks(name))
        return key

    def _message(self, name: str, value: Any) -> KeyValue:
        return KeyValue(key=writable(self._redactor.text(name)), value=_any(self._redactor.value(name, value)))


def _any(value: Any) -> AnyValue:
    """Return what the redactor has left of a value: text, numbers, lists and mappings."""
    match value:
        case None:
            return AnyValue()
        case bool():
            return AnyValue(bool_value=value)
        case int() if ~_LARGEST_INT <= value <= _LARGEST_INT:
            return AnyValue(int_value=value)
        case float():
            return AnyValue(double_value=value)
        case list():
            return AnyValue(array_value=ArrayValue(values=map(_any, value)))
        case dict():
            values = [KeyValue(key=writable(name), value=_any(one)) for name, one in value.items()]
            return AnyValue(kvlist_value=KeyValueList(values=values))
        case _:
            return AnyValue(string_value=writable(str(value)))


def _size(size: int) -> bytes:
    return _SIZES[size] if size < len(_SIZES) else _varint(size)

"""
Batches of spans as OTLP has them, redacted as they are written.

Most of what the spans of a batch say is the same in all of them, and is redacted and written once; what differs is
written straight as the bytes of its fields.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope as ProtoScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource as ProtoResource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanKind, StatusCode

from .light_spans import LightSpan
from .otlp_fields import (
    KINDS,
    NAME,
    PARENT_ID,
    RESOURCE_SPANS,
    SCOPE_SPANS,
    SPANS,
    STATUS,
    AttributeWriter,
    field,
    span_flags,
    span_head,
    utf8,
    writable,
)
from .redaction import Redactor

logger = logging.getLogger("faasbase.tracing")

AnySpan = TypeVar("AnySpan", ReadableSpan, LightSpan)

_SCOPE = InstrumentationScope("faasbase", "")
"""Of whatever this package makes spans of."""
_CODES = {code: Status.StatusCode.Value(f"STATUS_CODE_{code.name}") for code in StatusCode}


class SpanEncoder:
    """Writes one batch of spans; the light ones among them are of a provider of *resource*."""

    def __init__(self, redactor: Redactor, resource: Resource) -> None:
        self._redactor, self._resource = redactor, resource
        self._attributes = AttributeWriter(redactor)
        self._shared: dict[tuple[str, SpanKind, int], bytes] = {}
        self._described: dict[tuple[str, StatusCode, str | None], bytes] = {}

    def encode(self, spans: Sequence[ReadableSpan | LightSpan]) -> bytes:
        """Return the body of an ``ExportTraceServiceRequest`` with *spans*."""
        light = self._fields(self._light, [span for span in spans if isinstance(span, LightSpan)])
        written = [self._of_resource(self._resource, [self._of_scope(_SCOPE, light)])] if light else []
        sources: dict[int, dict[int, list[ReadableSpan]]] = {}
        for span in spans:
            if not isinstance(span, LightSpan):
                scopes = sources.setdefault(id(span.resource), {})
                scopes.setdefault(id(span.instrumentation_scope), []).append(span)
        for scopes in sources.values():
            scoped = list(scopes.values())
            written.append(self._of_resource(scoped[0][0].resource, [self._scope(spans) for spans in scoped]))
        return b"".join(written)

    def _of_resource(self, resource: Resource, scopes: Sequence[bytes]) -> bytes:
        described = ProtoResource(attributes=self._attributes.messages(resource.attributes))
        head: bytes = ResourceSpans(resource=described, schema_url=resource.schema_url).SerializeToString()
        return field(RESOURCE_SPANS, head + b"".join(field(SCOPE_SPANS, scope) for scope in scopes))

    def _scope(self, spans: Sequence[ReadableSpan]) -> bytes:
        """Write *spans*, which have one scope."""
        return self._of_scope(spans[0].instrumentation_scope, self._fields(self._span, spans))

    def _fields(self, write: Callable[[AnySpan], bytes], spans: Sequence[AnySpan]) -> list[bytes]:
        written = []
        for span in spans:
            try:
                written.append(field(SPANS, write(span)))
            except Exception:
                logger.exception("a span cannot be written")
        return written

    def _of_scope(self, scope: InstrumentationScope | None, spans: Sequence[bytes]) -> bytes:
        head = ScopeSpans(scope=ProtoScope())
        if scope:
            attributes = self._attributes.messages(scope.attributes)
            described = ProtoScope(name=scope.name, version=scope.version or "", attributes=attributes)
            head = ScopeSpans(scope=described, schema_url=scope.schema_url or "")
        written: bytes = head.SerializeToString()
        return written + b"".join(spans)

    def _span(self, span: ReadableSpan) -> bytes:
        ids, parent = span.context, span.parent
        head = span_head(
            ids.trace_id.to_bytes(16, "big"),
            ids.span_id.to_bytes(8, "big"),
            span.start_time or 0,
            span.end_time or 0,
            below_remote=parent is not None and parent.is_remote,
        )
        parts = [head, KINDS[span.kind], self._description(span)]
        if parent:
            parts += (PARENT_ID, parent.span_id.to_bytes(8, "big"))
        if _has_more(span):
            parts.append(self._more(span))
        # What spans hold is slow to go through itself.
        attributes: Any = span.attributes or {}
        parts.append(self._attributes.fields(attributes.copy()))
        return b"".join(parts)

    def _light(self, span: LightSpan) -> bytes:
        trace_id, parent_id = span.below.ids
        own_id = span.span_id.to_bytes(8, "big")
        head = span_head(trace_id, own_id, span.began_at, span.ended_at, below_remote=parent_id != b"")
        parent = PARENT_ID + parent_id if parent_id else b""
        key = span.title, span.kind, id(span.shared)
        if (shared := self._shared.get(key)) is None:
            name = field(NAME, utf8(self._redactor.text(span.title)))
            described = KINDS[span.kind] + name + field(STATUS, b"")
            shared = self._shared[key] = described + self._attributes.fields(span.shared)
        return head + parent + shared + self._attributes.fields(span.own)

    def _description(self, span: ReadableSpan) -> bytes:
        """Write the name and the status."""
        status = span.status
        key = span.name, status.status_code, status.description
        if (written := self._described.get(key)) is None:
            message = writable(self._redactor.text(status.description or ""))
            told: bytes = Status(code=_CODES[status.status_code], message=message).SerializeToString()
            name = utf8(self._redactor.text(span.name))
            written = self._described[key] = field(NAME, name) + field(STATUS, told)
        return written

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
            attributes = self._attributes.messages(event.attributes)
            name = writable(self._redactor.text(event.name))
            more.events.add(name=name, time_unix_nano=event.timestamp, attributes=attributes)
        for link in span.links:
            ids = link.context
            more.links.add(
                trace_id=ids.trace_id.to_bytes(16, "big"),
                span_id=ids.span_id.to_bytes(8, "big"),
                attributes=self._attributes.messages(link.attributes),
                flags=span_flags(remote=ids.is_remote),
            )
        written: bytes = more.SerializeToString()
        return written


def _has_more(span: ReadableSpan) -> bool:
    """Tell whether *span* has what few have."""
    dropped = span.dropped_attributes or span.dropped_events or span.dropped_links
    return bool(span.events or span.links or span.context.trace_state or dropped)

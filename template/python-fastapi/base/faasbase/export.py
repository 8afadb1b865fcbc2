"""The OpenTelemetry SDK's side of tracing: provider, OTLP exporter, redaction, contrib instrumentation."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .errors import missing_extra
from .redaction import Redactor
from .settings import Settings

try:
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import Event, ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
except ModuleNotFoundError as exc:
    raise missing_extra(exc, "opentelemetry", "otel") from exc

from opentelemetry import trace
from opentelemetry.trace import Span
from opentelemetry.trace.status import Status

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Scope

Hook = Callable[[Span, "Scope"], None]


class RedactingExporter(SpanExporter):
    """Hands spans on with every text in them redacted; runs in the exporting thread, off the path of requests."""

    def __init__(self, exporter: SpanExporter, redactor: Redactor) -> None:
        self._exporter = exporter
        self._redactor = redactor

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._exporter.export([self._redacted(span) for span in spans])

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def _redacted(self, span: ReadableSpan) -> ReadableSpan:
        events = [Event(e.name, self._attributes(e.attributes), e.timestamp) for e in span.events]
        description = span.status.description
        return ReadableSpan(
            name=self._redactor.text(span.name),
            context=span.context,
            parent=span.parent,
            resource=span.resource,
            attributes=self._attributes(span.attributes),
            events=events,
            links=span.links,
            kind=span.kind,
            status=Status(span.status.status_code, self._redactor.text(description) if description else None),
            start_time=span.start_time,
            end_time=span.end_time,
            instrumentation_scope=span.instrumentation_scope,
        )

    def _attributes(self, attributes: Mapping[str, Any] | None) -> dict[str, Any]:
        return {name: self._redactor.value(name, value) for name, value in (attributes or {}).items()}


def otlp_provider(settings: Settings, redactor: Redactor) -> TracerProvider:
    """
    Return a provider that exports over OTLP/HTTP in batches from a thread.

    Endpoint, headers, sampler and queue bounds are OpenTelemetry's own ``OTEL_*`` variables.

    Raises:
        MissingExtraError: ``faasbase[otel]`` is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ModuleNotFoundError as exc:
        raise missing_extra(exc, "opentelemetry", "otel") from exc
    provider = TracerProvider(resource=_resource(settings))
    exporter = RedactingExporter(OTLPSpanExporter(), redactor)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)
    return provider


def flush(provider: TracerProvider, timeout_seconds: float) -> None:
    """Export what is queued; gives up after *timeout_seconds*, since a collector that is away must not hold an exit."""
    _bounded(lambda: provider.force_flush(int(timeout_seconds * 1000)), timeout_seconds)


def shut_down(provider: TracerProvider, timeout_seconds: float) -> None:
    """Export what is queued and end the exporter; gives up after *timeout_seconds*."""
    _bounded(provider.shutdown, timeout_seconds)


def instrument_asgi(app: ASGIApp, provider: trace.TracerProvider, hook: Hook, excluded: str) -> ASGIApp:
    """Return *app* with contrib's instrumentation: one SERVER span a request, stable HTTP conventions."""
    # Contrib reads the opt-in once, at its first use.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    try:
        from fastapi import FastAPI
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        from opentelemetry.util.http import parse_excluded_urls
    except ModuleNotFoundError as exc:
        raise missing_extra(exc, "opentelemetry", "otel") from exc
    if isinstance(app, FastAPI):
        FastAPIInstrumentor.instrument_app(
            app,
            excluded_urls=excluded,
            server_request_hook=hook,
            tracer_provider=provider,
            exclude_spans=["receive", "send"],
        )
        return app
    wrapped: ASGIApp = OpenTelemetryMiddleware(
        app,
        excluded_urls=parse_excluded_urls(excluded),
        server_request_hook=hook,
        tracer_provider=provider,
        exclude_spans=["receive", "send"],
    )
    return wrapped


def _resource(settings: Settings) -> Resource:
    attributes = {"faas.name": settings.function_name, "service.instance.id": socket.gethostname()}
    if settings.namespace:
        attributes["service.namespace"] = settings.namespace
    # OTEL_SERVICE_NAME is the operator's word and wins over ours, which `create` would put above it.
    if not os.environ.get("OTEL_SERVICE_NAME"):
        attributes["service.name"] = settings.function_name
    return Resource.create(attributes)


def _bounded(work: Callable[[], object], timeout_seconds: float) -> None:
    thread = threading.Thread(target=work, name="telemetry-flush", daemon=True)
    thread.start()
    thread.join(timeout_seconds)

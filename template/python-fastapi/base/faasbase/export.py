"""The OpenTelemetry SDK's side of tracing: provider, OTLP exporter, redaction, contrib instrumentation."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from .errors import missing_extra
from .redaction import Redactor
from .settings import Settings

try:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

    from .light_spans import LightSpan, SpanProcessors
    from .otlp import SpanEncoder
except ModuleNotFoundError as exc:
    raise missing_extra(exc, "opentelemetry", "otel") from exc

from opentelemetry import trace
from opentelemetry.trace import Span

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Scope

Hook = Callable[[Span, "Scope"], None]


class RedactingExporter(OTLPSpanExporter):
    """Sends spans with every text in them redacted; runs in the exporting thread, off the path of requests."""

    def __init__(self, redactor: Redactor, resource: Resource) -> None:
        super().__init__()
        self._redactor, self._resource = redactor, resource

    def export(self, spans: Sequence[ReadableSpan | LightSpan]) -> SpanExportResult:
        # The library's own encodes for itself, and has no other way in for what is encoded already.
        body = SpanEncoder(self._redactor, self._resource).encode(spans)
        sent = not self._shutdown and self._client.export(body).success
        return SpanExportResult.SUCCESS if sent else SpanExportResult.FAILURE


def otlp_provider(settings: Settings, redactor: Redactor) -> TracerProvider:
    """
    Return a provider that exports over OTLP/HTTP in batches from a thread.

    Endpoint, headers, sampler and queue bounds are OpenTelemetry's own ``OTEL_*`` variables.

    Raises:
        MissingExtraError: ``faasbase[otel]`` is not installed.
    """
    resource = _resource(settings)
    batches = BatchSpanProcessor(RedactingExporter(redactor, resource))
    provider = TracerProvider(resource=resource, active_span_processor=SpanProcessors(batches))
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

"""Client spans and metrics of fetches, by OpenTelemetry's conventions for HTTP as far as strangers may fill them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry.trace import Span, StatusCode

from ..metrics import histogram
from ..tracing import client_span
from .errors import FetchError
from .urls import Target


@dataclass(slots=True)
class Hop:
    """One request, as span and metrics tell it."""

    status: int | None = None
    peer: str | None = None
    """The address that was connected to."""


@contextmanager
def recorded(method: str, target: Target, resent: int) -> Iterator[Hop]:
    """
    Trace and time the body, the *resent*-th redirect of a fetch.

    The metrics have no host among their labels, though the conventions ask for it: callers choose the hosts, and each
    would be a series of its own.
    """
    seconds = histogram(
        "http_client_request_duration_seconds", "Time of fetches, a redirect each.", ("method", "outcome")
    )
    hop, started, outcome = Hop(), time.perf_counter(), "given_up"
    attributes: dict[str, str | int] = {
        "http.request.method": method,
        "server.address": target.host,
        "server.port": target.port,
        "url.full": target.shown,
    }
    if resent:
        attributes["http.request.resend_count"] = resent
    with client_span(method, **attributes) as span:
        try:
            yield hop
            outcome = f"{(hop.status or 0) // 100}xx"
        except FetchError as exc:
            outcome = exc.kind
            span.set_attribute("error.type", exc.kind)
            raise
        finally:
            _describe(span, hop, answered=outcome.endswith("xx"))
            seconds.observe(time.perf_counter() - started, method=method, outcome=outcome)


def _describe(span: Span, hop: Hop, *, answered: bool) -> None:
    if hop.status is not None:
        span.set_attribute("http.response.status_code", hop.status)
        if hop.status >= 400 and answered:
            span.set_attribute("error.type", str(hop.status))
            span.set_status(StatusCode.ERROR)
    if hop.peer:
        span.set_attribute("network.peer.address", hop.peer)

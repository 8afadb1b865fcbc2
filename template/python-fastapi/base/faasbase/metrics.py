"""Counters, gauges and histograms for functions and for the base itself, served for Prometheus on their own port."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any

import prometheus_client
from prometheus_client import REGISTRY

from .tracing import TraceIds, current_trace

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

# The buckets of Go's client library, which of-watchdog's histogram has.
DURATION_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# `_created` series double every counter and are no part of the text format that most scrapers ask for.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


class Now(Enum):
    """Says that an exemplar is the trace of the moment, and not one that is over and was kept."""

    NOW = "now"


NOW = Now.NOW


class _Series:
    """The series of one metric by their labels' values; the library's own look-up costs several times as much."""

    def __init__(self, metric: Any, labels: Sequence[str]) -> None:
        self._metric = metric
        self._names = tuple(labels)
        self._known: dict[tuple[str, ...], Any] = {}

    def of(self, labels: Mapping[str, str]) -> Any:
        if not self._names and not labels:
            return self._metric
        values = tuple(map(labels.get, self._names))
        try:
            return self._known[values]  # type: ignore[index]
        except KeyError:
            series = self._known[values] = self._metric.labels(**labels)  # type: ignore[index]
            return series

    def forget(self, labels: Mapping[str, str]) -> None:
        values = tuple(map(labels.__getitem__, self._names))
        if self._known.pop(values, None) is not None:
            self._metric.remove(*values)


class Counter:
    """A number that only grows; each increment carries the current trace as its exemplar."""

    def __init__(self, name: str, description: str, labels: Sequence[str]) -> None:
        self._series = _Series(prometheus_client.Counter(name, description, labels), labels)

    def inc(self, amount: float = 1.0, *, trace: TraceIds | Now | None = NOW, **labels: str) -> None:
        """Add *amount* (not negative) to the series of *labels*."""
        self._series.of(labels).inc(amount, _exemplar(trace))

    def series(self, **labels: str) -> CounterSeries:
        """Return the series of *labels*, for those who count thousands a second in it."""
        return CounterSeries(self._series.of(labels))


class CounterSeries:
    """One series of a counter."""

    __slots__ = ("_child",)

    def __init__(self, child: Any) -> None:
        self._child = child

    def inc(self, amount: float = 1.0, *, trace: TraceIds | Now | None = NOW) -> None:
        """Add *amount* (not negative)."""
        self._child.inc(amount, _exemplar(trace))


class Histogram:
    """A distribution, in the unit that its name ends with; each observation carries the current trace."""

    def __init__(self, name: str, description: str, labels: Sequence[str], buckets: Sequence[float]) -> None:
        self._series = _Series(prometheus_client.Histogram(name, description, labels, buckets=buckets), labels)

    def observe(self, value: float, *, trace: TraceIds | Now | None = NOW, **labels: str) -> None:
        """Record *value* in the series of *labels*."""
        self._series.of(labels).observe(value, _exemplar(trace))

    def series(self, **labels: str) -> HistogramSeries:
        """Return the series of *labels*, for those who observe thousands a second in it."""
        return HistogramSeries(self._series.of(labels))


class HistogramSeries:
    """One series of a histogram."""

    __slots__ = ("_child",)

    def __init__(self, child: Any) -> None:
        self._child = child

    def observe(self, value: float, *, trace: TraceIds | Now | None = NOW) -> None:
        """Record *value*."""
        self._child.observe(value, _exemplar(trace))


class Gauge:
    """A number that goes up and down."""

    def __init__(self, name: str, description: str, labels: Sequence[str]) -> None:
        self._series = _Series(prometheus_client.Gauge(name, description, labels), labels)

    def set(self, value: float, **labels: str) -> None:
        """Make *value* the state of the series of *labels*."""
        self._series.of(labels).set(value)

    def inc(self, amount: float = 1.0, **labels: str) -> None:
        """Add *amount*, which may be negative."""
        self._series.of(labels).inc(amount)

    def read_from(self, read: Callable[[], float], **labels: str) -> None:
        """Ask *read* for the number at each scrape, which is cheaper than setting it all the time."""
        self._series.of(labels).set_function(read)

    def forget(self, **labels: str) -> None:
        """Show the series of *labels* no more; nothing happens where there is none."""
        self._series.forget(labels)


def counter(name: str, description: str, labels: Sequence[str] = ()) -> Counter:
    """Return the counter *name* (shown with ``_total``); asking again for the same one gives the same one."""
    return _counter(name, description, tuple(labels))


def histogram(
    name: str,
    description: str,
    labels: Sequence[str] = (),
    buckets: Sequence[float] = DURATION_BUCKETS,
) -> Histogram:
    """Return the histogram *name*, which should end with its unit (``_seconds``, ``_bytes``)."""
    return _histogram(name, description, tuple(labels), tuple(buckets))


def gauge(name: str, description: str, labels: Sequence[str] = ()) -> Gauge:
    """Return the gauge *name*."""
    return _gauge(name, description, tuple(labels))


_counter, _histogram, _gauge = cache(Counter), cache(Histogram), cache(Gauge)


def metrics_app() -> ASGIApp:
    """Return an ASGI app with ``/metrics``: text format, or OpenMetrics with exemplars for those who accept it."""
    exposition = prometheus_client.make_asgi_app(REGISTRY)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == "/metrics":
            await exposition(scope, receive, send)
            return
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"10")]
        await send({"type": "http.response.start", "status": 404, "headers": headers})
        await send({"type": "http.response.body", "body": b"Not found\n"})

    return app


def _exemplar(trace: TraceIds | Now | None) -> dict[str, str] | None:
    if isinstance(trace, Now):
        trace = current_trace()
    # An exemplar that points at a trace nobody kept would lead nowhere.
    return {"trace_id": trace.trace_id, "span_id": trace.span_id} if trace and trace.sampled else None

"""Watch over the cache's back end: spans, metrics, and errors that stay here."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Self

from ..metrics import CounterSeries, HistogramSeries, counter, histogram
from ..tracing import current_trace, span, tracing_on
from .backend import CacheError, NotDoneError
from .keys import function_part

log = logging.getLogger(__name__)

_MAX_NAMES = 100
_BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)


class Outcome:
    """
    One operation: how it ends, and the bytes that it moves.

    A class with slots and no generator around it, since those would cost more than the operation itself.
    """

    __slots__ = ("_key", "_operation", "_operations", "_span", "_started", "name", "read_bytes", "written_bytes")

    def __init__(self, operations: Operations, operation: str, key: str) -> None:
        self._operations, self._operation, self._key = operations, operation, key
        self._span: AbstractContextManager[object] | None = None
        self.name = "ok"
        self.read_bytes = self.written_bytes = 0

    def __enter__(self) -> Self:
        self._started = time.perf_counter()
        if tracing_on():
            self._span = _traced(self._operation, self._key, self)
            self._span.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        swallowed = isinstance(error, (CacheError, OSError))
        if swallowed:
            self.name = "skipped" if isinstance(error, NotDoneError) else "error"
        if self._span is not None:
            self._span.__exit__(None, None, None) if swallowed else self._span.__exit__(kind, error, trace)
        if error is None or swallowed:
            self._operations.ended(self._operation, self, time.perf_counter() - self._started, error)
        return swallowed


class Operations:
    """
    Records each operation, and swallows the back end's errors: a cache must never be why a call fails.

    One that *tells* of its outages by itself needs no line here.
    """

    def __init__(self, *, tells: bool = False) -> None:
        self._counted = counter(
            "faas_cache_operations",
            "Operations on the function's cache by what came of them.",
            ("operation", "outcome"),
        )
        self._seconds = histogram(
            "faas_cache_operation_seconds", "What operations on the function's cache took.", ("operation",), _BUCKETS
        )
        moved = counter("faas_cache_bytes", "Bytes of values from and to the function's cache.", ("direction",))
        self._read, self._written = moved.series(direction="read"), moved.series(direction="written")
        self._series: dict[tuple[str, str], tuple[CounterSeries, HistogramSeries]] = {}
        self._tells = tells
        self._failing = False
        self._unfit = set[str]()

    def record(self, operation: str, key: str) -> Outcome:
        """
        Run the body as *operation*: where the back end fails, the body ends there and the outcome is ``error``.

        It is ``skipped`` where the back end was not asked, as it is while it does not answer.
        """
        return Outcome(self, operation, key)

    @contextmanager
    def loading(self, key: str) -> Iterator[None]:
        """Run the body as the load of *key*; its errors are the function's own and go on to the caller."""
        outcome = "error"
        try:
            with span("cache.load", **{"cache.name": function_part(key)}):
                yield
            outcome = "ok"
        finally:
            self.count("load", outcome)

    def unfit(self, key: str, reason: str) -> None:
        """Tell that the value of *key* is not kept since JSON cannot carry it: in one log line for each function."""
        self.count("set", "unfit")
        self._tell_once(key, "results of %s do not survive JSON (%s) and are not cached", reason)

    def too_large(self, key: str, limit_bytes: int) -> None:
        """Tell that the value of *key* is too large to be kept: in one log line for each function."""
        self.count("set", "too_large")
        self._tell_once(key, "results of %s are larger than %s bytes and are not cached", str(limit_bytes))

    def count(self, operation: str, outcome: str) -> None:
        self._series_of(operation, outcome)[0].inc()

    def ended(self, operation: str, outcome: Outcome, seconds: float, error: BaseException | None) -> None:
        """Count an operation that is over, and tell when the back end begins or ends to fail."""
        # Looked up once for all of them: it costs more than they do.
        trace = current_trace()
        counted, timed = self._series_of(operation, outcome.name)
        counted.inc(trace=trace)
        timed.observe(seconds, trace=trace)
        if outcome.read_bytes:
            self._read.inc(outcome.read_bytes, trace=trace)
        if outcome.written_bytes:
            self._written.inc(outcome.written_bytes, trace=trace)
        if self._tells:
            return
        if error is not None:
            self._failed(error)
        elif self._failing:
            self._failing = False
            log.info("the cache works again")

    def _series_of(self, operation: str, outcome: str) -> tuple[CounterSeries, HistogramSeries]:
        series = self._series.get((operation, outcome))
        if series is None:
            counted = self._counted.series(operation=operation, outcome=outcome)
            series = self._series[operation, outcome] = counted, self._seconds.series(operation=operation)
        return series

    def _failed(self, exc: BaseException) -> None:
        # One line per change of state: an outage under load would else write thousands a second.
        if not self._failing:
            self._failing = True
            log.warning("the cache fails (%s): values are loaded without it", type(exc).__name__)

    def _tell_once(self, key: str, message: str, reason: str) -> None:
        name = function_part(key)
        # Keys that are not @cached's own may begin with anything.
        if name not in self._unfit and len(self._unfit) < _MAX_NAMES:
            self._unfit.add(name)
            log.warning(message, name or "a load", reason)


@contextmanager
def _traced(operation: str, key: str, outcome: Outcome) -> Iterator[None]:
    with span(f"cache.{operation}", **{"cache.name": function_part(key)}) as current:
        yield
        current.set_attribute("cache.outcome", outcome.name)

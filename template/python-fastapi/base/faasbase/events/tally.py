"""Counts of events by type and outcome, kept as plain numbers: the library's own cost more than an event's handling."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

from opentelemetry.trace import Span
from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, Exemplar, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..metrics import DURATION_BUCKETS
from ..tracing import ids_of

_BOUNDS = [*map(str, DURATION_BUCKETS), "+Inf"]
_SHORTEST = DURATION_BUCKETS[0]
_ATTEMPT_BOUNDS = (1, 2, 3, 5, 8, 13, 21)
_MOST_ATTEMPTS = _ATTEMPT_BOUNDS[-1]


@dataclass(slots=True)
class _OfType:
    outcomes: dict[str, int] = field(default_factory=dict)
    buckets: list[int] = field(default_factory=lambda: [0] * len(_BOUNDS))
    examples: list[tuple[Span, float] | None] = field(default_factory=lambda: [None] * len(_BOUNDS))
    seconds: float = 0.0


class Tally(Collector):
    """Counts on the event loop's thread and is read by that of the metrics' server: numbers, hence no lock."""

    def __init__(self) -> None:
        self._types: dict[str, _OfType] = {}

    def add(self, event_type: str, outcome: str, seconds: float, span: Span | None = None) -> None:
        """Count one attempt at an event, recorded as *span*; *event_type* is one of a bounded number."""
        counted = self._types.get(event_type)
        if counted is None:
            counted = self._types[event_type] = _OfType()
        counted.outcomes[outcome] = counted.outcomes.get(outcome, 0) + 1
        counted.seconds += seconds
        bucket = 0 if seconds <= _SHORTEST else bisect_left(DURATION_BUCKETS, seconds)
        counted.buckets[bucket] += 1
        if span is not None:
            counted.examples[bucket] = span, seconds

    def collect(self) -> Iterable[Metric]:
        """Return what Prometheus is told: ``faas_events_total`` and ``faas_event_duration_seconds``."""
        events = CounterMetricFamily("faas_events", "Events by what became of them.", labels=("type", "outcome"))
        durations = HistogramMetricFamily(
            "faas_event_duration_seconds", "Seconds spent on an event in one attempt.", labels=("type",)
        )
        for event_type, counted in list(self._types.items()):
            for outcome, count in list(counted.outcomes.items()):
                events.add_metric([event_type, outcome], count)
            sums = accumulate(counted.buckets)
            buckets = [
                (bound, total) if (exemplar := _exemplar(example)) is None else (bound, total, exemplar)
                for bound, total, example in zip(_BOUNDS, sums, counted.examples, strict=True)
            ]
            durations.add_metric([event_type], buckets, counted.seconds)
        return [events, durations]


class Attempts(Collector):
    """Counts, by destination, how many attempts messages took until they were settled or given up."""

    def __init__(self) -> None:
        self._counts: defaultdict[str, Counter[int]] = defaultdict(Counter)

    def of(self, destination: str) -> Counter[int]:
        """Return the counts of messages of *destination*, by how many attempts they took."""
        return self._counts[destination]

    def add(self, destination: str, attempts: int) -> None:
        """Count a message that took *attempts*; all beyond the largest bucket are one."""
        self.of(destination)[attempts if attempts <= _MOST_ATTEMPTS else _MOST_ATTEMPTS + 1] += 1

    def collect(self) -> Iterable[Metric]:
        """Return what Prometheus is told: ``faas_event_attempts``."""
        told = HistogramMetricFamily(
            "faas_event_attempts", "Attempts at messages that were settled or given up.", labels=("destination",)
        )
        for destination, counts in list(self._counts.items()):
            mine = list(counts.items())
            buckets = [
                (str(float(most)), sum(count for made, count in mine if made <= most)) for most in _ATTEMPT_BOUNDS
            ]
            buckets.append(("+Inf", sum(count for _, count in mine)))
            told.add_metric([destination], buckets, sum(made * count for made, count in mine))
        return [told]


def _exemplar(example: tuple[Span, float] | None) -> Exemplar | None:
    ids = ids_of(example[0]) if example is not None else None
    if example is None or ids is None or not ids.sampled:
        return None
    return Exemplar({"trace_id": ids.trace_id, "span_id": ids.span_id}, example[1])


TALLY = Tally()
REGISTRY.register(TALLY)
ATTEMPTS = Attempts()
REGISTRY.register(ATTEMPTS)

"""Watch over the cache's back end: spans, metrics, and errors that stay here."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ..metrics import counter
from ..tracing import span
from .backend import CacheError
from .keys import function_part

log = logging.getLogger(__name__)

_MAX_NAMES = 100


@dataclass(slots=True)
class Outcome:
    """How an operation ended: ``ok``, ``hit``, ``miss``, ``wait``, ``unfit`` or ``error``."""

    name: str = "ok"


class Operations:
    """Records each operation, and swallows the back end's errors: a cache must never be why a call fails."""

    def __init__(self) -> None:
        self._counted = counter(
            "faas_cache_operations",
            "Operations on the function's cache by what came of them.",
            ("operation", "outcome"),
        )
        self._failing = False
        self._unfit = set[str]()

    @contextmanager
    def record(self, operation: str, key: str) -> Iterator[Outcome]:
        """Run the body as *operation*: where the back end fails, the body ends there and the outcome is ``error``."""
        outcome = Outcome()
        with span(f"cache.{operation}", **{"cache.name": function_part(key)}) as current:
            try:
                yield outcome
            except (CacheError, OSError) as exc:
                outcome.name = "error"
                self._failed(exc)
            else:
                self._worked()
            current.set_attribute("cache.outcome", outcome.name)
        self.count(operation, outcome.name)

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
        name = function_part(key)
        # Keys that are not @cached's own may begin with anything.
        if name not in self._unfit and len(self._unfit) < _MAX_NAMES:
            self._unfit.add(name)
            log.warning("results of %s do not survive JSON (%s) and are not cached", name or "a load", reason)

    def count(self, operation: str, outcome: str) -> None:
        self._counted.inc(operation=operation, outcome=outcome)

    def _failed(self, exc: Exception) -> None:
        # One line per change of state: an outage under load would else write thousands a second.
        if not self._failing:
            self._failing = True
            log.warning("the cache fails (%s): values are loaded without it", type(exc).__name__)

    def _worked(self) -> None:
        if self._failing:
            self._failing = False
            log.info("the cache works again")

"""What is told of requests to S3: a client span and metrics for each, and one log line for what ails the store."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from opentelemetry.trace import Span

from ..metrics import counter, histogram
from ..tracing import client_span
from .errors import (
    ChecksumError,
    ObjectChangedError,
    ObjectNotFoundError,
    StorageError,
    StoreDeniedError,
    StoreUnavailableError,
)
from .s3_location import S3Location

log = logging.getLogger("faasbase.storage")

REQUESTS = counter("faas_storage_requests", "Requests to the object store by what came of them.", ("method", "outcome"))
SECONDS = histogram("faas_storage_request_seconds", "Seconds spent on requests, repetitions included.", ("method",))
RETRIES = counter("faas_storage_retries", "Requests to the object store that were sent again.", ("method",))

_OUTCOMES = {
    ObjectNotFoundError: "not_found",
    ObjectChangedError: "changed",
    ChecksumError: "checksum",
    StoreDeniedError: "denied",
    StoreUnavailableError: "unavailable",
}
_REPEAT_SECONDS = 60.0


class Record:
    """Takes note of what becomes of one request."""

    def __init__(self, method: str, span: Span) -> None:
        self._method, self._span, self._retries = method, span, 0

    def retried(self) -> None:
        """Count a repetition."""
        self._retries += 1
        RETRIES.inc(method=self._method)
        self._span.set_attribute("http.request.resend_count", self._retries)

    def answered(self, answer: Any) -> None:
        """Keep the id by which the store's owner finds the request."""
        about = answer.get("ResponseMetadata", {})
        if request_id := about.get("RequestId"):
            self._span.set_attribute("aws.request_id", str(request_id))
        if status := about.get("HTTPStatusCode"):
            self._span.set_attribute("http.response.status_code", int(status))


@contextmanager
def recorded(location: S3Location, method: str, key: str) -> Iterator[Record]:
    """
    Run the body as the request *method* about the object *key*.

    Names are those of https://opentelemetry.io/docs/specs/semconv/object-stores/s3/.
    """
    outcome, began = "error", time.monotonic()
    with client_span(f"S3.{method}", **_attributes(location, method, key)) as span:
        try:
            yield Record(method, span)
            outcome = "ok"
        except StorageError as exc:
            outcome = _OUTCOMES.get(type(exc), "error")
            raise
        finally:
            REQUESTS.inc(method=method, outcome=outcome)
            SECONDS.observe(time.monotonic() - began, method=method)


def _attributes(location: S3Location, method: str, key: str) -> dict[str, str | int]:
    attributes: dict[str, str | int] = {
        "rpc.system.name": "aws-api",
        "rpc.method": f"S3/{method}",
        "aws.s3.bucket": location.bucket,
    }
    if key:
        attributes["aws.s3.key"] = location.prefix + key
    if location.endpoint:
        server = urlsplit(location.endpoint)
        attributes["server.address"] = server.hostname or ""
        attributes["server.port"] = server.port or (443 if server.scheme == "https" else 80)
    return attributes


class Outage:
    """Tells in the log what ails the store: once, and again each minute while it lasts."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._told: dict[str, float] = {}
        self._down = False

    def failed(self, error: StorageError) -> None:
        """Take note of *error*, unless it is about one object alone."""
        if isinstance(error, (ObjectNotFoundError, ObjectChangedError, ChecksumError)):
            return
        self._down = self._down or isinstance(error, StoreUnavailableError)
        now = self._clock()
        if now - self._told.get(error.reason, -_REPEAT_SECONDS) >= _REPEAT_SECONDS:
            self._told[error.reason] = now
            log.error("storage: %s", error.reason)

    def over(self) -> None:
        """Take note of an answer."""
        if self._down:
            self._down = False
            self._told.clear()
            log.info("storage: the store answers again")

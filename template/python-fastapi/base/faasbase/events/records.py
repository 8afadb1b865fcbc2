"""What transports bring: a message as it came, and what its handler may know of how it came."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..context import CallContext, current_handled

if TYPE_CHECKING:
    from .envelope import Event


PARTITION = "messaging.destination.partition.id"
_making = threading.Lock()
"""Of what a handler's threads may ask for at the same time."""


@dataclass(slots=True)
class Record:
    """
    A message as a transport brings it, before anyone has looked into it.

    *headers* are text with names in lower case; *raw_headers* are what came, for a dead letter to keep.
    """

    system: str
    """``kafka``, ``nats``, ``http`` or ``memory``, as ``messaging.system`` has it."""
    destination: str
    """Topic or subject."""
    place: str
    """Where it is found again: ``topic/partition``, or stream; empty where it is kept nowhere."""
    offset: int
    """Its number there."""
    content: bytes
    headers: Mapping[str, str]
    key: bytes | None = None
    attempt: int = 1
    timestamp: float | None = None
    """When it was written, in seconds since 1970, by its broker or its producer."""
    source: str = ""
    """The CloudEvents source of a message that has none of its own."""
    raw_headers: Sequence[tuple[str, bytes | None]] = ()
    origin: tuple[tuple[str, str], ...] = ()
    """What spans say of all that comes from where it does, by the semantic conventions."""
    stream: str = ""
    """What holds the message, where there may be too many destinations to count by each; empty is the destination."""
    tombstone: bool = False
    """Whether it has no content at all, which to Kafka is not the same as an empty one."""

    @property
    def position(self) -> str:
        """Its place and number: ``topic/partition/offset``, ``stream/sequence``; empty where it has none."""
        return f"{self.place}/{self.offset}" if self.place else ""

    @property
    def is_kafkas(self) -> bool:
        """Whether it lies in a partition of Kafka's, whoever has brought it."""
        return bool(self.origin) and self.origin[-1][0] == PARTITION

    @property
    def counted_by(self) -> str:
        """What stands for the destination in metrics and in names of spans."""
        return self.stream or self.destination


@dataclass(slots=True)
class Delivery:
    """The delivery of an event that is being handled; of a batch, that of its first event."""

    position: str
    """``topic/partition/offset`` or ``stream/sequence``; over HTTP the connector's, or empty."""
    destination: str
    """Topic or subject; over HTTP the connector's, or empty."""
    attempt: int
    """1 for the first; over HTTP only the sender counts."""
    key: bytes | None
    """Kafka's, or what the extension ``partitionkey`` says."""
    deadline: float | None
    """When the handler is cancelled, on the clock of `time.monotonic`; None where nothing bounds it."""
    event_source: str = ""
    event_id: str = ""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The message's, names in lower case."""
    propagated: tuple[str, ...] = ()
    """Names of the headers that travel along a chain (``PROPAGATE_HEADERS``)."""
    published: dict[str, int] = field(default_factory=dict, repr=False)
    """What the handler has published so far, which ids are derived by."""

    def remaining_seconds(self) -> float | None:
        """Return what is left until the deadline, never below zero; None where there is none."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def as_call(self) -> CallContext:
        """Return the call that the delivery is to logs and to calls of other functions."""
        chained = {name: self.headers[name] for name in self.propagated if name in self.headers}
        raw = {name.encode("latin-1", "replace"): value.encode("latin-1", "replace") for name, value in chained.items()}
        return CallContext(self.position, self.deadline, propagated=self.propagated, raw_headers=raw)


@dataclass(slots=True)
class Running:
    """A record whose *event* is being handled, None for a batch; most handlers never ask for its delivery or call."""

    record: Record
    deadline: float | None
    propagated: tuple[str, ...]
    event: Event[Any] | None = None
    call: CallContext | None = None
    """The call that has brought it, if one has."""
    made: Delivery | None = None

    def delivery(self) -> Delivery:
        """Return the delivery, the same one each time."""
        if self.made is None:
            with _making:
                self.made = self.made or self._make()
        return self.made

    def _make(self) -> Delivery:
        record, event = self.record, self.event
        return Delivery(
            record.position,
            record.destination,
            record.attempt,
            record.key if record.key is not None else _key_of(event),
            self.deadline,
            event.source if event is not None else "",
            event.id if event is not None else "",
            record.headers,
            self.propagated,
        )

    def as_call(self) -> CallContext | None:
        """Return the call that brought it, or that the delivery is to logs and to calls of other functions."""
        if self.call is None and self.record.system != "http":
            made = self.delivery().as_call()
            with _making:
                self.call = self.call or made
        return self.call


def _key_of(event: Event[Any] | None) -> bytes | None:
    """Return what CloudEvents' extension for it says, where the transport has no place for a key."""
    key = event.extensions.get("partitionkey") if event is not None else None
    return None if key is None else key.encode("utf-8", "replace")


def current_delivery() -> Delivery | None:
    """Return the delivery that is being handled, or None outside a handler of events."""
    running = current_handled()
    return running.delivery() if isinstance(running, Running) else None

"""What transports bring: a message as it came, and what its handler may know of how it came."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..context import CallContext, enter_call

if TYPE_CHECKING:
    from .envelope import Event

_current: ContextVar[Running | None] = ContextVar("faasbase.delivery", default=None)


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
    position: str
    """Where it is found again: ``topic/partition/offset``, ``stream/sequence``."""
    content: bytes
    headers: Mapping[str, str]
    key: bytes | None = None
    attempt: int = 1
    timestamp: float | None = None
    """When it was written, in seconds since 1970, by its broker or its producer."""
    source: str = ""
    """The CloudEvents source of a message that has none of its own."""
    raw_headers: Sequence[tuple[str, bytes | None]] = ()
    attributes: Mapping[str, str | int] = field(default_factory=dict)
    """What only spans say of it, by the semantic conventions."""
    stream: str = ""
    """What holds the message, where there may be too many destinations to count by each; empty is the destination."""
    tombstone: bool = False
    """Whether it has no content at all, which to Kafka is not the same as an empty one."""

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
    made: Delivery | None = None

    def enter(self) -> None:
        """Make it the current one of this task's context; a call that has brought it stays the current call."""
        _current.set(self)
        if self.record.system != "http":
            enter_call(self.as_call)

    def delivery(self) -> Delivery:
        """Return the delivery, the same one each time."""
        if self.made is None:
            record, event = self.record, self.event
            self.made = Delivery(
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
        return self.made

    def as_call(self) -> CallContext:
        """Return the call that the delivery is to logs and to calls of other functions."""
        return self.delivery().as_call()


def _key_of(event: Event[Any] | None) -> bytes | None:
    """Return what CloudEvents' extension for it says, where the transport has no place for a key."""
    key = event.extensions.get("partitionkey") if event is not None else None
    return None if key is None else key.encode("utf-8", "replace")


def current_delivery() -> Delivery | None:
    """Return the delivery that is being handled, or None outside a handler of events."""
    running = _current.get()
    return None if running is None else running.delivery()

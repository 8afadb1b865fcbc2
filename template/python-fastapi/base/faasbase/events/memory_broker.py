"""The broker of one process: topics, what was published to them, and their dead letters."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

from .dead_letters import DeadLetter
from .envelope import Event, Parcel, data_of, read_envelope
from .outgoing import PublishError
from .records import Record

PREFIX = "ce-"
_MOST_WAITING, _MOST_KEPT = 100_000, 10_000


@dataclass(slots=True, eq=False)
class MemoryMessage:
    """A message in a topic; *attempts* counts its runs."""

    topic: str
    offset: int
    content: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    key: bytes | None = None
    written_at: float = field(default_factory=time.time)
    attempts: int = 0

    def event(self) -> Event[Any]:
        """
        Return the event that the message holds.

        Raises:
            MalformedError: It holds none.
        """
        envelope = read_envelope(self.parcel())
        return Event[Any].model_validate({**envelope.attributes, "data": data_of(envelope, Any, None)})

    def parcel(self) -> Parcel:
        """Return the message as it came."""
        plain = (f"{self.topic}/{self.offset}", f"memory:{self.topic}", self.topic)
        return Parcel(self.content, self.headers, PREFIX, False, plain)

    def record(self) -> Record:
        """Return the message as its handler's processor takes it."""
        return Record(
            "memory",
            self.topic,
            self.topic,
            self.offset,
            self.content,
            self.headers,
            self.key,
            self.attempts,
            self.written_at,
            f"memory:{self.topic}",
            [(name, value.encode("utf-8", "backslashreplace")) for name, value in self.headers.items()],
        )


class Topic:
    """What waits in a topic, for whoever takes it first."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.waiting: deque[MemoryMessage] = deque()
        self.written = 0
        self.changed = asyncio.Event()


class MemoryBroker:
    """The topics of one event loop, what was last published to them, and their dead letters."""

    def __init__(self) -> None:
        self.published: deque[MemoryMessage] = deque(maxlen=_MOST_KEPT)
        self.dead_letters: deque[DeadLetter] = deque(maxlen=_MOST_KEPT)
        self._topics: dict[str, Topic] = {}

    def topic(self, name: str) -> Topic:
        """Return the topic *name*, which is there from now on."""
        return self._topics.setdefault(name, Topic(name))

    def write(
        self, name: str, content: bytes, headers: Mapping[str, str] | None = None, key: bytes | None = None
    ) -> None:
        """
        Put a message into the topic *name*.

        Raises:
            PublishError: Nobody takes what is in it.
        """
        topic = self.topic(name)
        if len(topic.waiting) >= _MOST_WAITING:
            raise PublishError(f"the topic {name} holds {_MOST_WAITING} messages that nobody takes")
        message = MemoryMessage(name, topic.written, content, dict(headers or {}), key)
        topic.written += 1
        topic.waiting.append(message)
        self.published.append(message)
        topic.changed.set()


_BROKERS: WeakKeyDictionary[asyncio.AbstractEventLoop, MemoryBroker] = WeakKeyDictionary()


def memory_broker() -> MemoryBroker:
    """Return the broker of the event loop that is running."""
    return _BROKERS.setdefault(asyncio.get_running_loop(), MemoryBroker())

"""Tell pushed events from calls of the function's HTTP surface, by their headers alone."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.types import Scope

from ..envelope import ANY_CLOUDEVENTS, REQUIRED
from ..handlers import EventHandler

_ATTRIBUTES = frozenset(f"ce-{name}".encode("ascii") for name in REQUIRED)
_CLOUDEVENTS = ANY_CLOUDEVENTS.encode("ascii")
_KAFKA_ATTRIBUTES = frozenset(f"x-kafka-ce_{name}".encode("ascii") for name in REQUIRED)


class EventMarks:
    """
    Tells a pushed event from a call.

    An event has a content type of CloudEvents or one of their required headers (one is enough, so that an event which
    lacks others is refused, and not taken for a call and lost).  So is a connector's POST, which has ``X-Topic``, where
    the topic is a type of *handlers*, the message has attributes of CloudEvents, or *alone*: there is no HTTP surface.
    """

    def __init__(self, handlers: Sequence[EventHandler], *, alone: bool = False) -> None:
        self._topics = frozenset(kind.encode("utf-8") for handler in handlers for kind in handler.types)
        self._alone = alone

    def __call__(self, scope: Scope) -> bool:
        """Tell whether the request of *scope* is an event; runs for every call of a function with handlers."""
        for name, value in scope["headers"]:
            if name in _ATTRIBUTES or (name == b"content-type" and value.lower().startswith(_CLOUDEVENTS)):
                return True
            if name == b"x-topic" and self._takes(value, scope):
                return True
        return False

    def _takes(self, topic: bytes, scope: Scope) -> bool:
        if scope["method"] != "POST":
            return False
        return self._alone or topic in self._topics or any(map(_is_kafka_mark, scope["headers"]))


def _is_kafka_mark(header: tuple[bytes, bytes]) -> bool:
    name, value = header
    return name in _KAFKA_ATTRIBUTES or (name == b"x-kafka-content-type" and value.lower().startswith(_CLOUDEVENTS))

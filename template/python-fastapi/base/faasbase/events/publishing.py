"""``publish()``: events on their way out, to the broker or function that ``PUBLISH_URL`` names."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from typing import Any

import anyio.from_thread
from pydantic_core import to_json

from ..backends import backend_of
from ..context import current_call, new_call_id
from ..errors import SettingError
from ..settings import Settings
from ..tracing import inject
from .envelope import ATTRIBUTES
from .outgoing import Outgoing, Publisher, PublishError
from .records import current_delivery
from .telemetry import PUBLISHED, SendSpan

PUBLISHERS: Mapping[str, str] = {
    "http": "faasbase.events.http.gateway:open_publisher",
    "https": "faasbase.events.http.gateway:open_publisher",
    "kafka": "faasbase.events.kafka:open_publisher",
    "memory": "faasbase.events.memory:open_publisher",
    "nats": "faasbase.events.nats:open_publisher",
}

_EXTENSION = re.compile(r"[a-z0-9]{1,20}")
_NO_EXTENSIONS = frozenset({*ATTRIBUTES, "data", "data_base64"} - {"dataschema"})
_MOST_DESTINATIONS = 50
"""That are counted by their names; a function may have any number of subjects."""


@dataclass(slots=True)
class _Active:
    publisher: Publisher
    source: str
    timeout_seconds: float
    structured: bool
    counted: set[str] = field(default_factory=set)

    def counted_as(self, destination: str) -> str:
        """Return what stands for *destination* in metrics."""
        if len(self.counted) < _MOST_DESTINATIONS:
            self.counted.add(destination)
        return destination if destination in self.counted else "other"


_active: list[_Active] = []


async def publish(
    event_type: str,
    data: Any = None,
    *,
    key: str | bytes | None = None,
    subject: str | None = None,
    id: str | None = None,
    source: str | None = None,
    to: str | None = None,
    content_type: str | None = None,
    extensions: Mapping[str, str] | None = None,
) -> str:
    """
    Send an event and return its id, once the broker of ``PUBLISH_URL`` has it for good.

    *data* is bytes, or what pydantic makes JSON of; events of one *key* keep their order.  *to* is another topic or
    subject than that of ``PUBLISH_URL``.  In a `def`: `publish_sync`.

    The id of an event that a handler of events sends is derived from the event that it handles and from what it sends:
    a repeat that sends the same sends the same id, by which whoever takes it can tell.  Where what is sent varies, as
    with times in it, and in a handler of lists, whose next list is another one, *id* is the handler's to give.

    Raises:
        PublishError: It is not sure to have been kept, within ``PUBLISH_TIMEOUT``; as a `Problem` it answers 503.
        SettingError: ``PUBLISH_URL`` is not set.
        ValueError: An extension's name is not lower-case letters and digits, or that of an attribute.
    """
    active = _publisher()
    named = {"type": event_type, "subject": subject, "source": source or active.source}
    raw_key = key.encode("utf-8") if isinstance(key, str) else key
    content, kind = _content(data, content_type)
    event_id = id or _derived_id(event_type, subject, raw_key, content) or new_call_id()
    attributes = {"specversion": "1.0", "id": event_id, "time": datetime.now(UTC).isoformat(), "datacontenttype": kind}
    attributes |= {name: value for name, value in {**named, **_checked(extensions)}.items() if value is not None}
    await _send(active, attributes, content, raw_key, to or active.publisher.destination)
    return event_id


def publish_sync(event_type: str, data: Any = None, **options: Any) -> str:
    """Do as `publish` does, from a `def` that runs in a thread of the function's: its caller waits."""
    return anyio.from_thread.run(partial(publish, event_type, data, **options))


@asynccontextmanager
async def opened_publisher(settings: Settings) -> AsyncIterator[None]:
    """
    Open the publisher of ``PUBLISH_URL``, make it what `publish` sends with, and close it at the end.

    Raises:
        SettingError: The URL is wrong, or nobody answers there within ``EVENTS_START_TIMEOUT``.
    """
    policy = settings.events
    publisher: Publisher = backend_of("PUBLISH_URL", policy.publish_url, PUBLISHERS)(policy.publish_url, settings)
    structured = policy.publish_mode == "structured"
    try:
        await _open(publisher, policy.start_timeout)
        with activate_publisher(
            publisher,
            source=settings.root_path or f"/function/{settings.qualified_name}",
            timeout_seconds=policy.publish_timeout,
            structured=structured,
        ):
            yield
    finally:
        await publisher.close()


@contextmanager
def activate_publisher(
    publisher: Publisher, *, source: str, timeout_seconds: float, structured: bool = False
) -> Iterator[None]:
    """Make *publisher* what `publish` sends with; *source* is that of events which name none."""
    active = _Active(publisher, source, timeout_seconds, structured)
    _active.append(active)
    try:
        yield
    finally:
        _active.remove(active)


async def _open(publisher: Publisher, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await publisher.open()
    except TimeoutError as exc:
        reason = f"nobody there has answered within {seconds:g} s (EVENTS_START_TIMEOUT)"
        raise SettingError("PUBLISH_URL", reason) from exc


def _publisher() -> _Active:
    if not _active:
        raise SettingError("PUBLISH_URL", "must name where events are sent, for publish() to send one")
    return _active[-1]


async def _send(
    active: _Active, attributes: dict[str, str], content: bytes, key: bytes | None, destination: str
) -> None:
    publisher = active.publisher
    told = {f"cloudevents.event_{name}": attributes[name] for name in ("id", "type", "source")}
    with SendSpan(publisher.system, destination, {**told, "messaging.message.body.size": len(content)}):
        headers: dict[str, str] = {}
        if call := current_call():
            headers.update(call.headers)
        inject(headers)
        message = Outgoing(
            attributes=attributes, content=content, key=key, headers=headers, structured=active.structured
        )
        try:
            async with asyncio.timeout(active.timeout_seconds):
                await publisher.send(message, destination)
        except (TimeoutError, PublishError) as exc:
            PUBLISHED.inc(destination=active.counted_as(destination), outcome="failed")
            if isinstance(exc, PublishError):
                raise
            raise PublishError(f"{publisher.system} gave no answer within {active.timeout_seconds:g} s") from exc
    PUBLISHED.inc(destination=active.counted_as(destination), outcome="sent")


def _content(data: Any, content_type: str | None) -> tuple[bytes, str]:
    if isinstance(data, bytes | bytearray | memoryview):
        return bytes(data), content_type or "application/octet-stream"
    return to_json(data), content_type or "application/json"


def _derived_id(event_type: str, subject: str | None, key: bytes | None, content: bytes) -> str | None:
    """
    Return the same id whenever the handler of the same event sends the same, however often, in whatever order.

    By their order alone two events might change ids, and whoever has seen one would drop the other.
    """
    delivery = current_delivery()
    if delivery is None or not delivery.event_id:
        return None
    names = (delivery.event_source, delivery.event_id, event_type, subject or "", (key or b"").hex())
    told = f"{json.dumps(names)}|{sha256(content).hexdigest()}"
    sent = delivery.published.get(told, 0)
    delivery.published[told] = sent + 1
    return sha256(f"{told}|{sent}".encode()).hexdigest()[:32]


def _checked(extensions: Mapping[str, str] | None) -> dict[str, str]:
    for name in extensions or {}:
        if not _EXTENSION.fullmatch(name):
            raise ValueError("names of extensions are up to 20 lower-case letters and digits")
        if name in _NO_EXTENSIONS:
            raise ValueError(f"{name} is an attribute of every event, and no extension's name")
    return {name: str(value) for name, value in (extensions or {}).items()}

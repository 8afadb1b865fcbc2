"""
What a pusher has sent, as a message: an event's own headers and data, or what one of OpenFaaS' connectors brings.

Connectors say ``X-Topic`` and ``X-Connector``.  The one of Kafka adds ``X-Kafka-Partition``, ``-Offset``, ``-Key``
(in base64 where ``-Key-Enc`` is ``b64``) and each header of the message as ``X-Kafka-<name>``.  The one of NATS has the
subject for its topic, the one of cron the topic ``cron-function`` and no body.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Mapping
from urllib.parse import quote

from ...context import current_call, new_call_id
from ..dead_letters import PREFIX
from ..envelope import REQUIRED, MalformedError, Parcel, media_type
from ..records import PARTITION, Record

Message = tuple[Record, Parcel]

_KAFKA = "x-kafka-"
_MAX_TOPIC_CHARACTERS = 256
_MAX_DIGITS = 19
_ATTRIBUTES = tuple(f"ce-{name}" for name in REQUIRED)
_KEPT = ("content-type", "traceparent", "tracestate", "baggage")
"""Of a request's headers, what belongs to its event; others are the call's, and may be credentials."""


def request_headers(raw_headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers of a request as text, of each name the first one."""
    headers: dict[str, str] = {}
    for name, value in raw_headers:
        headers.setdefault(name.decode("latin-1"), value.decode("latin-1"))
    return headers


def pushed_message(headers: Mapping[str, str], content: bytes) -> Message:
    """
    Return the message that a request with *headers* and the body *content* brings.

    Raises:
        MalformedError: A connector names no topic that could be one.
    """
    if "x-topic" in headers and not any(name in headers for name in _ATTRIBUTES):
        return _connectors(headers, content)
    return _record(headers, headers, content), Parcel(content, headers)


def item_record(headers: Mapping[str, str], content_type: str) -> Record:
    """Return the record of one event among others of the request with *headers*, without its content."""
    return _record(headers, {"content-type": content_type}, b"")


def _record(headers: Mapping[str, str], kept: Mapping[str, str], content: bytes) -> Record:
    raw = [
        (name, value.encode("latin-1"))
        for name, value in kept.items()
        if name in _KEPT or name.startswith(("ce-", PREFIX))
    ]
    return Record("http", "", "", 0, content, headers, raw_headers=raw)


def _connectors(headers: Mapping[str, str], content: bytes) -> Message:
    topic = _text(headers["x-topic"])
    if not 0 < len(topic) <= _MAX_TOPIC_CHARACTERS:
        raise MalformedError(f"X-Topic must have from 1 to {_MAX_TOPIC_CHARACTERS} characters")
    message = {name[len(_KAFKA) :]: _text(value) for name, value in headers.items() if name.startswith(_KAFKA)}
    partition, offset = message.pop("partition", ""), message.pop("offset", "")
    is_placed = _is_number(partition) and _is_number(offset)
    key = _key(message.pop("key", None), message.pop("key-enc", ""))
    kind = headers.get("content-type", "")
    # Connectors say text/plain of whatever they bring, unless their site has told them otherwise.
    if kind and media_type(kind) != "text/plain":
        message.setdefault("content-type", kind)
    record = Record(
        "http",
        topic,
        f"{topic}/{partition}" if is_placed else "",
        int(offset) if is_placed else 0,
        content,
        message,
        key,
        raw_headers=[(name, value.encode("utf-8")) for name, value in message.items()],
    )
    if is_placed:
        record.origin = (("messaging.system", "kafka"), (PARTITION, partition))
    record.source = f"kafka:{topic}" if is_placed else f"{_connector(headers)}:{topic}"
    plain = (record.position or _call_id(), record.source, topic)
    return record, Parcel(content, message, "ce_", percent_encoded=False, plain=plain)


def _connector(headers: Mapping[str, str]) -> str:
    return quote(headers.get("x-connector", "")[:_MAX_TOPIC_CHARACTERS]) or "connector"


def _call_id() -> str:
    """Return the call's id, which is the same when a queue sends the call again."""
    call = current_call()
    return call.call_id if call else new_call_id()


def _key(text: str | None, encoding: str) -> bytes | None:
    if text is None:
        return None
    if encoding == "b64":
        try:
            return b64decode(text, validate=True)
        except ValueError:
            # The message itself may have a header called Key-Enc.
            pass
    return text.encode("utf-8")


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


def _text(value: str) -> str:
    """Return a header's value as the connector has written it, in UTF-8."""
    return value.encode("latin-1").decode("utf-8", "replace")

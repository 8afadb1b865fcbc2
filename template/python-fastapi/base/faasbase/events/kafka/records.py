"""From a record of Kafka to what a handler's processor takes, by the Kafka binding of CloudEvents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from aiokafka.structs import TopicPartition

from ..envelope import HEADERS, JSON, MAX_EXTENSIONS, Envelope, Parcel
from ..records import PARTITION, Record

PREFIX = "ce_"
_ATTRIBUTES = HEADERS[PREFIX]
_USUAL = frozenset((*_ATTRIBUTES, "content-type", "traceparent", "tracestate", "baggage"))
"""Headers of events that have no extensions."""


class Message(Protocol):
    """What the library gives for a record."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    """In milliseconds since 1970; below zero where there is none."""
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]


class RecordReader:
    """
    Makes records, and parcels of events, of the messages of *place*.

    Headers are whatever somebody has sent: of those with one name the last one counts, as Kafka has it, and what is no
    UTF-8 is replaced.  A tombstone has no content.
    """

    def __init__(self, place: TopicPartition) -> None:
        self._topic = place.topic
        self._origin = ((PARTITION, str(place.partition)),)
        self._place = f"{place.topic}/{place.partition}"
        self._source = f"kafka:{place.topic}"

    def read(self, message: Message, attempt: int) -> tuple[Record, Parcel | Envelope]:
        """Return *message* as a record on its run *attempt*, and as a parcel, or as what most parcels hold."""
        offset, raw, content = message.offset, message.headers, message.value or b""
        try:
            # Of all that is done for a record this takes longest.
            headers = {name: value.decode() for name, value in raw}  # type: ignore[union-attr]
            usual = headers.keys() <= _USUAL
            readable = usual or all(name == name.lower() for name in headers)
        except (AttributeError, UnicodeDecodeError):
            readable = usual = False
        if not readable:
            headers = {name.lower(): value.decode("utf-8", "replace") for name, value in raw if value is not None}
        record = Record(
            "kafka",
            self._topic,
            self._place,
            offset,
            content,
            headers,
            message.key,
            attempt,
            message.timestamp / 1000 if message.timestamp > 0 else None,
            self._source,
            raw,
            self._origin,
        )
        if message.value is None:
            record.tombstone = True
        if (attributes := _attributes_of(headers, usual)) is not None:
            return record, Envelope(attributes, content)
        return record, Parcel(content, headers, PREFIX, False, (record.position, self._source, self._topic))


def _attributes_of(headers: Mapping[str, str], usual: bool) -> dict[str, Any] | None:
    """Return the attributes of an event in binary mode that says that its data is JSON; None for all else."""
    if headers.get("content-type") != JSON:
        return None
    try:
        attributes: dict[str, Any] = {
            "id": headers["ce_id"],
            "source": headers["ce_source"],
            "type": headers["ce_type"],
            "specversion": headers["ce_specversion"],
            "datacontenttype": JSON,
        }
    except KeyError:
        return None
    if "ce_time" in headers:
        attributes["time"] = headers["ce_time"]
    if "ce_subject" in headers:
        attributes["subject"] = headers["ce_subject"]
    if "ce_dataschema" in headers:
        attributes["dataschema"] = headers["ce_dataschema"]
    attributes["extensions"] = extensions = {} if usual else _extensions_of(headers)
    return attributes if len(extensions) <= MAX_EXTENSIONS else None


def _extensions_of(headers: Mapping[str, str]) -> dict[str, str]:
    return {
        name[len(PREFIX) :]: text
        for name, text in headers.items()
        if name.startswith(PREFIX) and name not in _ATTRIBUTES
    }

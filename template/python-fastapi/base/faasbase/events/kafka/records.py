"""From a record of Kafka to what a handler's processor takes, by the Kafka binding of CloudEvents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from aiokafka.structs import TopicPartition

from ..envelope import HEADERS, JSON, MAX_EXTENSIONS, Envelope, Parcel
from ..records import Record

PREFIX = "ce_"
_ATTRIBUTES = HEADERS[PREFIX]


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
        self._topic, self._partition = place.topic, str(place.partition)
        self._prefix = f"{place.topic}/{place.partition}/"
        self._source = f"kafka:{place.topic}"

    def read(self, message: Message, attempt: int) -> tuple[Record, Parcel | Envelope]:
        """Return *message* as a record on its run *attempt*, and as a parcel, or as what most parcels hold."""
        offset, raw, content = message.offset, message.headers, message.value or b""
        headers: dict[str, str] = {}
        attributes: dict[str, Any] = {}
        extensions: dict[str, str] = {}
        try:
            # Of all that is done for a record this takes longest.
            for given, value in raw:
                text = value.decode()  # type: ignore[union-attr]
                if (attribute := _ATTRIBUTES.get(given)) is not None:
                    headers[given] = attributes[attribute] = text
                    continue
                name = given.lower()
                headers[name] = text
                if (attribute := _ATTRIBUTES.get(name)) is not None:
                    attributes[attribute] = text
                elif name[:3] == PREFIX:
                    extensions[name[3:]] = text
        except (AttributeError, UnicodeDecodeError):
            headers = {name.lower(): value.decode("utf-8", "replace") for name, value in raw if value is not None}
            attributes = {}
        position = f"{self._prefix}{offset}"
        record = Record(
            "kafka",
            self._topic,
            position,
            content,
            headers,
            message.key,
            attempt,
            message.timestamp / 1000 if message.timestamp > 0 else None,
            self._source,
            raw,
            {"messaging.kafka.offset": offset, "messaging.destination.partition.id": self._partition},
        )
        if message.value is None:
            record.tombstone = True
        # Said one by one: to compare sets takes three times as long.
        is_whole = (
            "id" in attributes and "source" in attributes and "type" in attributes and "specversion" in attributes
        )
        if is_whole and headers.get("content-type") == JSON and len(extensions) <= MAX_EXTENSIONS:
            attributes["datacontenttype"], attributes["extensions"] = JSON, extensions
            return record, Envelope(attributes, content)
        return record, Parcel(content, headers, PREFIX, False, (position, self._source, self._topic))

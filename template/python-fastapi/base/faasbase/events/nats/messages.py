"""Messages of NATS and what they are to a handler's processor: the NATS binding of CloudEvents, both ways."""

from __future__ import annotations

from urllib.parse import quote, unquote

from ..envelope import Parcel
from ..outgoing import Outgoing
from ..records import Record
from .client import Message

PREFIX = "ce-"
MESSAGE_ID = "Nats-Msg-Id"
_PLAIN = "!#$&'()*+,/:;=?@[]<>\\^`{|}~"
"""What stands in a header as it is, beside letters and digits: visible ASCII, less the quote and the per cent sign."""


def record_of(message: Message) -> tuple[Record, Parcel]:
    """
    Return *message* as a record, on the try that its server counts, and as the parcel of an event.

    Raises:
        NatsError: It is no message of JetStream.
    """
    told = message.metadata
    headers = {name.lower(): value for name, value in (message.headers or {}).items()}
    source = f"nats:{told.stream}"
    key = headers.get(f"{PREFIX}partitionkey")
    record = Record(
        "nats",
        message.subject,
        told.stream,
        told.sequence.stream,
        message.data,
        headers,
        unquote(key).encode("utf-8", "replace") if key is not None else None,
        told.num_delivered,
        told.timestamp.timestamp(),
        source,
        _raw(message.raw_headers),
        (("messaging.consumer.group.name", told.consumer),),
        stream=told.stream,
    )
    return record, Parcel(message.data, headers, PREFIX, True, (record.position, source, message.subject))


def headers_of(message: Outgoing) -> dict[str, str]:
    """
    Return the headers that *message* is sent with.

    The server drops repeats of one message id: it is that of the event and its source, for ids are of one source only.
    """
    attributes, given = message.attributes, message.all_headers(PREFIX)
    headers = {name: quote(value, safe=_PLAIN) if name.startswith(PREFIX) else value for name, value in given.items()}
    if not message.structured and "datacontenttype" in attributes:
        # By the binding itself; others look for the content type, as everywhere else.
        headers[f"{PREFIX}datacontenttype"] = attributes["datacontenttype"]
    return {**headers, MESSAGE_ID: quote(f"{attributes['source']}#{attributes['id']}", safe=_PLAIN)}


def _raw(block: bytes) -> list[tuple[str, bytes]]:
    """Take the headers apart as they came, those with one name too; what is no header is left out."""
    lines = (line.partition(b":") for line in block.split(b"\r\n")[1:])
    return [(name.decode("ascii"), value.strip()) for name, colon, value in lines if colon and name.isascii()]

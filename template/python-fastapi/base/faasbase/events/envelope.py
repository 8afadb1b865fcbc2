"""
CloudEvents 1.0 in whatever carries them: binary and structured mode, and plain messages that know nothing of it.

https://github.com/cloudevents/spec: ``spec.md`` for the attributes, ``bindings/`` for HTTP, Kafka and NATS.
"""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeVar
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field

from ..errors import FieldError, Reject
from .texts import decoded, shown

Data = TypeVar("Data")
Decode = Callable[[bytes], Any]

JSON = "application/json"
STRUCTURED = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
ANY_CLOUDEVENTS = "application/cloudevents"
ATTRIBUTES = frozenset(("id", "source", "type", "specversion", "subject", "time", "datacontenttype", "dataschema"))
REQUIRED = frozenset(("id", "source", "specversion", "type"))
HEADERS = {prefix: {prefix + name: name for name in ATTRIBUTES} for prefix in ("ce-", "ce_")}
"""The attributes by the names of their headers, by the prefix of these."""
MAX_EXTENSIONS = 64


class Event(BaseModel, Generic[Data]):
    """A CloudEvent 1.0 whose data is validated as *Data*; unknown attributes are extensions."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    id: str = Field(min_length=1)
    source: str = Field(min_length=1)
    type: str = Field(min_length=1)
    specversion: str = Field("1.0", pattern=r"^1\.0$")
    subject: str | None = None
    time: datetime | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    extensions: dict[str, str] = Field(default_factory=dict)
    data: Data


class MalformedError(Reject):
    """A message that is no event, with the fields that are wrong; *status* is what a pusher over HTTP is told."""

    def __init__(self, reason: str, *, status: int = 400, errors: tuple[FieldError, ...] = ()) -> None:
        super().__init__(reason)
        self.status, self.errors = status, errors


@dataclass(slots=True)
class Parcel:
    """
    A message as it came: *content* is what it holds, *headers* have names in lower case.

    *prefix* is that of CloudEvents attributes among the headers (``ce-``, or ``ce_`` on Kafka), whose values are
    *percent_encoded* on some transports.  Where there are no such attributes, *plain* is the event's id, source and
    type; None where the transport takes no plain messages.
    """

    content: bytes
    headers: Mapping[str, str]
    prefix: str = "ce-"
    percent_encoded: bool = True
    plain: tuple[str, str, str] | None = None


@dataclass(slots=True)
class Envelope:
    """An event, unchecked: attributes, text but for ``extensions``, and data: *content* in binary mode, else *data*."""

    attributes: dict[str, Any]
    content: bytes | None = None
    data: Any = None

    @property
    def type(self) -> str:
        """The event's type; empty where it has none."""
        kind: str = self.attributes.get("type", "")
        return kind

    @property
    def media_type(self) -> str:
        """The data's media type; empty where the event does not say."""
        given = self.attributes.get("datacontenttype")
        return media_type(given) if isinstance(given, str) else ""


def read_envelope(parcel: Parcel) -> Envelope:
    """
    Read the event of *parcel*, in whichever mode it came; nothing is validated yet.

    Raises:
        MalformedError: It is no event.
    """
    content_type = parcel.headers.get("content-type", "")
    kind = media_type(content_type) if content_type != JSON else JSON
    if kind == STRUCTURED:
        return structured_envelope(read_json(parcel.content))
    if kind.startswith(ANY_CLOUDEVENTS):
        raise MalformedError(f"events come in binary mode or as {STRUCTURED}", status=415)
    attributes, extensions = _split(parcel)
    if attributes.keys() >= REQUIRED:
        if content_type:
            attributes["datacontenttype"] = content_type
        attributes["extensions"] = _bounded(extensions)
        return Envelope(attributes, parcel.content)
    if not attributes.keys().isdisjoint(REQUIRED):
        raise _incomplete(parcel.prefix, REQUIRED - attributes.keys())
    if parcel.plain is None:
        raise MalformedError("the message has no attributes of an event")
    event_id, source, event_type = parcel.plain
    attributes = {"id": event_id, "source": source, "type": event_type, "datacontenttype": content_type or None}
    return Envelope({**attributes, "specversion": "1.0", "extensions": {}}, parcel.content)


def structured_envelope(document: Any) -> Envelope:
    """
    Read a CloudEvent in the JSON format.

    Raises:
        MalformedError: It is none.
    """
    if not isinstance(document, dict):
        raise MalformedError("a structured event is a JSON object")
    data, encoded = document.pop("data", None), document.pop("data_base64", None)
    if encoded is None:
        return Envelope(_sorted(document), None, data)
    if data is not None or not isinstance(encoded, str):
        raise MalformedError("a structured event has data, or data_base64 as text, and not both")
    try:
        return Envelope(_sorted(document), b64decode(encoded, validate=True))
    except ValueError:
        raise MalformedError("the event's data_base64 cannot be read") from None


def is_json(kind: str) -> bool:
    """Tell whether a media type is JSON, or something that is written in it."""
    return kind == JSON or kind.endswith("+json")


def media_type(content_type: str) -> str:
    """Return *content_type* without its parameters."""
    return content_type.partition(";")[0].strip().lower()


def read_json(content: bytes) -> Any:
    """
    Parse *content*.

    Raises:
        MalformedError: It is no JSON.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise MalformedError("the event's JSON cannot be read") from None


def data_of(envelope: Envelope, wanted: Any, decode: Decode | None) -> Any:
    """
    Return the event's data: by *decode*, else by its content type, else as JSON.

    Where bytes are *wanted* they are as they came; where str is, so is all but text in JSON.

    Raises:
        MalformedError: It cannot be read.
    """
    content = envelope.content
    if content is None:
        return envelope.data
    if decode is not None:
        return _decoded(decode, content)
    if wanted is bytes:
        return content
    kind = envelope.media_type or ("text/plain" if wanted is str else JSON)
    if is_json(kind) and not (wanted is str and content[:1] != b'"'):
        return read_json(content) if content else None
    if wanted is str or kind.startswith("text/"):
        try:
            return decoded(content, envelope.attributes.get("datacontenttype"))
        except ValueError as exc:
            raise MalformedError(str(exc)) from None
    return content


def _decoded(decode: Decode, content: bytes) -> Any:
    try:
        return decode(content)
    except Reject:
        raise
    except Exception as exc:
        # Whatever a decoder raises, the bytes are what it could not read.
        raise MalformedError(f"the event's data cannot be decoded: {type(exc).__name__}") from exc


def _split(parcel: Parcel) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the attributes and the extensions among the headers of *parcel*."""
    prefix, size = parcel.prefix, len(parcel.prefix)
    attributes: dict[str, Any] = {}
    extensions: dict[str, str] = {}
    names, decodes = HEADERS[prefix], parcel.percent_encoded
    for header, value in parcel.headers.items():
        if decodes and "%" in value and header.startswith(prefix):
            value = unquote(value)
        if header in names:
            attributes[names[header]] = value
        elif header.startswith(prefix):
            extensions[header[size:]] = value
    return attributes, extensions


def _incomplete(prefix: str, missing: Set[str]) -> MalformedError:
    errors = tuple(FieldError(prefix + name, "is missing") for name in sorted(missing))
    return MalformedError("an event in binary mode has four headers at least", errors=errors)


def _sorted(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of *document*, in which an unset one may be null, and its extensions as text."""
    given = {name: value for name, value in document.items() if value is not None}
    allowed = {name: str if name in ATTRIBUTES else str | int | float for name in given}
    if wrong := [name for name, value in given.items() if not isinstance(value, allowed[name])]:
        told = tuple(FieldError(shown(name), "must be text") for name in wrong[:8])
        raise MalformedError("the event's attributes are text", errors=told)
    text = {name: str(value) for name, value in given.items()}
    try:
        "".join((*text, *text.values())).encode("utf-8")
    except UnicodeEncodeError:
        raise MalformedError("the event's attributes hold half a surrogate pair") from None
    known = {name: text.pop(name) for name in ATTRIBUTES & text.keys()}
    return {**known, "extensions": _bounded(text)}


def _bounded(extensions: dict[str, str]) -> dict[str, str]:
    if len(extensions) > MAX_EXTENSIONS:
        raise MalformedError(f"an event has {MAX_EXTENSIONS} extensions at most")
    return extensions

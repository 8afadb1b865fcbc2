"""Events on their way out, as transports send them, and what a transport promises of them."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from ..errors import Problem
from .envelope import STRUCTURED


class PublishError(Problem):
    """An event, or a dead letter, is not sure to be kept by whoever it was sent to; callers are told 503."""

    def __init__(self, reason: str) -> None:
        super().__init__(503, "an event cannot be sent now")
        self.reason = reason
        self.args = (reason,)


class TooLargeError(PublishError):
    """A message has more bytes than whoever it was sent to takes: it will be no smaller next time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """An event as transports send it."""

    attributes: Mapping[str, str]
    """CloudEvents attributes and extensions."""
    content: bytes
    key: bytes | None = None
    """What keeps its order with others, and finds its partition."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Trace context and what else travels along a chain."""
    structured: bool = False

    def with_key(self) -> Outgoing:
        """Return the message with its key in CloudEvents' partitioning extension, for who has no other place for it."""
        if self.key is None or "partitionkey" in self.attributes:
            return self
        return replace(self, attributes={**self.attributes, "partitionkey": self.key.decode("utf-8", "replace")})

    def body(self) -> bytes:
        """Return what the message holds: the data, or in structured mode the whole event as JSON."""
        return self._structured() if self.structured else self.content

    def all_headers(self, prefix: str) -> dict[str, str]:
        """Return the message's headers, attributes with *prefix* among them in binary mode."""
        if self.structured:
            return {**self.headers, "content-type": f"{STRUCTURED}; charset=utf-8"}
        told = {prefix + name: value for name, value in self.attributes.items() if name != "datacontenttype"}
        kind = self.attributes.get("datacontenttype")
        return {**self.headers, **told, **({"content-type": kind} if kind else {})}

    def _structured(self) -> bytes:
        kind = self.attributes.get("datacontenttype", "")
        if kind == "application/json":
            document = {**self.attributes, "data": json.loads(self.content or b"null")}
        else:
            document = {**self.attributes, "data_base64": b64encode(self.content).decode("ascii")}
        return json.dumps(document).encode("utf-8")


class Publisher(Protocol):
    """Sends events to one place; *system* is its ``messaging.system``."""

    system: str
    destination: str
    """Where events go that do not say it: a topic, a subject, a function's address without credentials."""

    async def open(self) -> None:
        """
        Connect, and make sure that the destination is there, within the start's deadline.

        Raises:
            SettingError: The settings are wrong, or nobody answers.
        """

    async def send(self, message: Outgoing, destination: str) -> None:
        """
        Send *message* to *destination* and return once whoever takes it has it for good.

        Raises:
            PublishError: It is not sure to have been kept.
        """

    async def close(self) -> None:
        """Send what is under way, within a moment, and disconnect."""

"""A call as the gateway passes it on: the headers it adds, and those that end at each hop."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from answers import Headers, Scope

SERVED_BY = b"openfaas-local"
HOP_BY_HOP = frozenset(
    {
        b"connection", b"proxy-connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
"""RFC 9110 section 7.6.1, with ``Proxy-Connection``, which clients send though no standard has it."""
NOT_PASSED_ON = HOP_BY_HOP | {b"host", b"expect"}


@dataclass(frozen=True)
class Stamp:
    """What the gateway adds to a call, to tell it from others and to tell when it came."""

    call_id: bytes
    generated: bool
    """Whether the caller sent none: only then does the answer carry it."""
    start_time: bytes
    """Nanoseconds since the epoch."""

    @classmethod
    def of(cls, headers: Headers) -> Stamp:
        """Return the stamp for a call that arrives now with *headers*."""
        start_time = str(time.time_ns()).encode()
        given = value_of(headers, b"x-call-id")
        return cls(given or str(uuid.uuid4()).encode(), not given, start_time)

    def on_answer(self, headers: Iterable[tuple[bytes, bytes]] = ()) -> Headers:
        """Return *headers* of a function's answer with the gateway's; the function's own win."""
        answer = list(headers)
        mine = [(b"x-start-time", self.start_time), (b"x-served-by", SERVED_BY)]
        if self.generated:
            mine.append((b"x-call-id", self.call_id))
        present = {name for name, _ in answer}
        return answer + [(name, value) for name, value in mine if name not in present]


@dataclass(frozen=True)
class Call:
    """A call to a function, with everything but the body."""

    method: str
    target: bytes
    """Path and query as the function gets them, percent-encoding untouched."""
    headers: Headers
    stamp: Stamp

    @classmethod
    def of(cls, scope: Scope, path: bytes) -> Call:
        """Return the call that *scope* asks for; *path* is what follows the function's name."""
        given: Headers = scope["headers"]
        stamp = Stamp.of(given)
        query = scope["query_string"]
        target = (path or b"/") + (b"?" + query if query else b"")
        return cls(scope["method"], target, _forwarded(scope, passed_on(given), stamp), stamp)

    @property
    def chunked(self) -> bool:
        """Tell whether the body's length is unknown."""
        return value_of(self.headers, b"transfer-encoding") is not None

    @property
    def has_body(self) -> bool:
        """Tell whether a body follows."""
        return self.chunked or value_of(self.headers, b"content-length") is not None


def passed_on(headers: Headers) -> Headers:
    """Return *headers* without those that end here: hop by hop, and named in ``Connection``."""
    named = {name.strip().lower() for key, value in headers if key == b"connection" for name in value.split(b",")}
    return [(name, value) for name, value in headers if name not in NOT_PASSED_ON | named]


def value_of(headers: Headers, name: bytes) -> bytes | None:
    """Return the first value of a header, or ``None``; names are in lower case."""
    return next((value for key, value in headers if key == name), None)


def _forwarded(scope: Scope, headers: Headers, stamp: Stamp) -> Headers:
    given: Headers = scope["headers"]
    client = scope.get("client") or ("", 0)
    absent = {
        b"x-call-id": stamp.call_id,
        b"x-forwarded-host": value_of(given, b"host") or b"",
        b"x-forwarded-for": f"{client[0]}:{client[1]}".encode(),
        b"user-agent": SERVED_BY,
    }
    if value_of(given, b"transfer-encoding") is not None:
        # Ends at this hop, and is needed again on the next, where the length is just as unknown.
        absent[b"transfer-encoding"] = b"chunked"
    present = {name for name, _ in headers}
    added = [(name, value) for name, value in absent.items() if name not in present]
    return [*headers, *added, (b"x-start-time", stamp.start_time)]

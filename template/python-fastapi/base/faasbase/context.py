"""What is known of the call being handled: its id, its deadline, its headers and the function's public address."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextvars import ContextVar, Token
from dataclasses import dataclass, field
from os import urandom
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    # Functions that ask nobody who calls do not import it.
    from .callers import Caller

_CALL_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_HOST = re.compile(rb"[A-Za-z0-9._-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")

_MAX_HEADER_BYTES = 1024


class Handled(Protocol):
    """What a task handles that is no call, such as an event."""

    def as_call(self) -> CallContext | None:
        """Return the call that it is to logs and to calls of other functions, the same one each time."""


_current: ContextVar[CallContext | Handled | None] = ContextVar("faasbase.call", default=None)


@dataclass(frozen=True, slots=True)
class CallContext:
    """One call, as the gateway and the caller describe it; nothing of that is trusted unchecked."""

    call_id: str
    """``X-Call-Id`` of the gateway if it is well formed, else a new UUID."""
    deadline: float | None = None
    """When the call is cancelled, on the clock of `time.monotonic`; None where nothing bounds it."""
    root_path: str = ""
    propagated: tuple[str, ...] = ()
    """Names of the headers that travel along a chain of calls (``PROPAGATE_HEADERS``)."""
    raw_headers: Mapping[bytes, bytes] = field(default_factory=dict, repr=False)
    """The request's headers, names in lower case."""
    answer_headers: list[tuple[bytes, bytes]] = field(default_factory=list, repr=False)
    """What the answer gets beside its own headers; to be filled before it begins."""
    callers: tuple[Caller, ...] = ()
    """Who calls, one for each check that the call has passed: the settings' first, then those of its route."""

    @property
    def caller(self) -> Caller | None:
        """Who calls, by the check that was made last; None where nobody has asked."""
        return self.callers[-1] if self.callers else None

    @property
    def base_url(self) -> str:
        """The function's address as its caller sees it, without a trailing slash; a bare path where that is unknown."""
        host = self.host
        return f"{self.scheme}://{host.decode('ascii')}{self.root_path}" if host else self.root_path

    @property
    def host(self) -> bytes | None:
        """Host, and port if any, as the caller wrote them: the gateway hands them on in a header of their own."""
        for name in (b"x-forwarded-host", b"host"):
            # Each proxy on the way adds its own behind a comma; the caller's is the first.
            host = self.raw_headers.get(name, b"").partition(b",")[0].strip()
            if _HOST.fullmatch(host):
                return host
        return None

    @property
    def scheme(self) -> str:
        """``https`` where a proxy says that it was, else ``http``."""
        return "https" if self.forwarded_scheme == b"https" else "http"

    @property
    def forwarded_scheme(self) -> bytes:
        """What the first proxy on the way says of the caller's scheme; empty where none says anything."""
        return self.raw_headers.get(b"x-forwarded-proto", b"").partition(b",")[0].strip().lower()

    @property
    def headers(self) -> dict[str, str]:
        """The headers that travel along a chain of calls, as far as the caller sent them."""
        found = ((name, self.raw_headers.get(name.encode("latin-1"))) for name in self.propagated)
        return {name: value.decode("latin-1") for name, value in found if value and len(value) <= _MAX_HEADER_BYTES}

    @property
    def queued_seconds(self) -> float | None:
        """How long ago the gateway took the call (``X-Start-Time``); for an asynchronous one, its queue delay."""
        start_time = self.raw_headers.get(b"x-start-time", b"")
        if not start_time.isdigit() or len(start_time) > 20:
            return None
        return max(0.0, time.time() - int(start_time) / 1e9)

    def remaining_seconds(self) -> float | None:
        """Return what is left until the deadline, never below zero; None where there is no deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


def current_call() -> CallContext | None:
    """Return the call being handled, or None outside one."""
    call = _current.get()
    return call if call is None or isinstance(call, CallContext) else call.as_call()


def current_handled() -> CallContext | Handled | None:
    """Return what is being handled, whatever it is."""
    return _current.get()


def enter_call(call: CallContext | Handled) -> Token[CallContext | Handled | None]:
    """Make *call* the current one of this task, until the token is given to `leave_call`, or for good."""
    return _current.set(call)


def leave_call(token: Token[CallContext | Handled | None]) -> None:
    """Make current again what was before: who handles something may make a call to its own application."""
    _current.reset(token)


def call_id_of(headers: Mapping[bytes, bytes]) -> str:
    """Return the caller's ``X-Call-Id`` if its length and characters are fit to be logged, else a new one."""
    given = headers.get(b"x-call-id", b"")
    return given.decode("ascii") if _CALL_ID.fullmatch(given) else new_call_id()


def new_call_id() -> str:
    """Return a random version 4 UUID; `uuid.uuid4` costs three times as much."""
    raw = bytearray(urandom(16))
    raw[6], raw[8] = raw[6] & 0x0F | 0x40, raw[8] & 0x3F | 0x80
    text = raw.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

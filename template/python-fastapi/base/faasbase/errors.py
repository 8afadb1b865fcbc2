"""
The errors of the base, each with the fields that a caller can act on.

    FaasError
    ├── StartError            the process must not start; printed as one line, exit status 1
    │   ├── SettingError      a setting has a bad value (named; the value is never shown)
    │   ├── HandlerError      handler.py cannot be loaded or offers no or two surfaces
    │   ├── SecretMissingError a secret is not there (named); while the function runs, a Problem with status 503
    │   └── MissingExtraError a library behind an extra of faasbase is not installed
    ├── Problem               an answer that is not a success, as RFC 9457 problem details
    ├── Retry                 an event to be delivered again later
    └── Reject                an event that can never be handled
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from math import ceil, inf
from numbers import Real
from typing import Any

PROBLEM_TYPE = "application/problem+json"
LONGEST_PAUSE_SECONDS = 7 * 24 * 3600.0
"""What brokers keep messages for, where nobody says otherwise: an event that waits longer may be gone."""


class FaasError(Exception):
    """Base of every error that this package raises for outside failures."""


class StartError(FaasError):
    """The process cannot start; the message is the one line that its log gets."""


class SettingError(StartError):
    """The setting *name* has a value that cannot be used."""

    def __init__(self, name: str, reason: str) -> None:
        self.name, self.reason = name, reason
        super().__init__(f"setting {name} cannot be used: {reason}")


class HandlerError(StartError):
    """handler.py cannot serve: it does not load, or its surface is missing or not clear."""


class MissingExtraError(StartError):
    """*package* is needed and comes with ``faasbase[extra]``."""

    def __init__(self, package: str, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(f"{package} is not installed: add faasbase[{extra}] to requirements.txt")


def missing_extra(exc: ModuleNotFoundError, package: str, extra: str) -> Exception:
    """Name the extra only if *package* itself is absent; a broken install keeps its own error."""
    absent = (exc.name or "").startswith(package)
    return MissingExtraError(package, extra) if absent else exc


@dataclass(frozen=True, slots=True)
class FieldError:
    """One field of a request that is wrong, named as the caller wrote it (``op[1]``, ``body.amount``)."""

    field: str
    message: str


class Problem(FaasError):
    """
    Answer a call with an error status and RFC 9457 problem details.

    *detail* and *errors* are shown to the caller, so they must hold no secret.  *retry_after_seconds* becomes the
    ``Retry-After`` header, rounded up.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        title: str | None = None,
        errors: Sequence[FieldError] = (),
        retry_after_seconds: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors = status, detail, tuple(errors)
        self.title = title or _title(status)
        self.headers = dict(headers or {})
        if retry_after_seconds is not None:
            self.headers["Retry-After"] = str(max(1, ceil(retry_after_seconds)))

    def body(self, call_id: str | None = None) -> bytes:
        """Return the JSON document of RFC 9457 section 3, with the call's id as an extension member."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
        }
        document["detail"] = self.detail
        if call_id:
            document["call_id"] = call_id
        if self.errors:
            document["errors"] = [{"field": e.field, "message": e.message} for e in self.errors]
        return json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")


class SecretMissingError(StartError, Problem):
    """
    The secret *name*, which *setting* may have named, is not there or holds nothing usable.

    At start it is why there is none; while the function runs, its caller is told 503 and no name.
    """

    def __init__(self, name: str, reason: str, setting: str | None = None) -> None:
        detail = "a secret that the function needs cannot be read now"
        super().__init__(503, detail, retry_after_seconds=5)
        self.name, self.reason, self.setting = name, reason, setting
        named = f", which setting {setting} names," if setting else ""
        self.args = (f"secret {name}{named} cannot be read: {reason}",)


class Retry(FaasError):
    """
    Ask for the event to be delivered again, *after_seconds* from now or when the sender's back-off says.

    Seven days are the longest pause.  One that *counts* not is none of the event's attempts, which are bounded: it was
    not even tried.

    Raises:
        TypeError: *after_seconds* is no number.
        ValueError: It is below zero, or not finite.
    """

    def __init__(self, reason: object = "", *, after_seconds: float | None = None, counts: bool = True) -> None:
        super().__init__(reason)
        self.reason, self.counts = str(reason), counts
        self.after_seconds = None if after_seconds is None else _pause(after_seconds)


class Reject(FaasError):
    """Give the event up for *reason*: no later delivery of it could succeed."""

    def __init__(self, reason: object) -> None:
        super().__init__(reason)
        self.reason = str(reason)


def _pause(seconds: float) -> float:
    if not isinstance(seconds, Real):
        raise TypeError(f"after_seconds must be a number, not {type(seconds).__name__}")
    if not 0 <= seconds < inf:
        raise ValueError("after_seconds must be finite, and not below zero")
    return min(float(seconds), LONGEST_PAUSE_SECONDS)


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"

"""
What can go wrong with a fetch.

    Problem
    └── FetchError                  answered to the caller as it is, unless the handler knows better
        ├── BadUrlError         422 the URL is none, or not spelt in the one way that is taken
        ├── AddressRefusedError 403 host, port or IP address may not be fetched from
        ├── UnreachableError    502 nobody answers there: no such name, no connection, no valid certificate
        ├── BadAnswerError      502 what came back is no HTTP answer that can be used
        │   └── RedirectError   502 it leads on too often, or from https to http
        ├── TooLargeError       413 the answer has more bytes than are taken
        ├── TooSlowError        504 the deadline, or that of one step, is over
        └── BusyError           503 too many names are being looked up
"""

from collections.abc import Sequence
from typing import ClassVar

from ..errors import FieldError, Problem


class FetchError(Problem):
    """
    A fetch that gave nothing.

    ``detail`` is for the caller and tells nothing of what is inside; *reason* is for the log, and may name addresses.
    """

    status_code: ClassVar[int] = 502
    kind: ClassVar[str] = "fetch"
    """Its name in metrics and spans (``error.type``)."""

    def __init__(
        self,
        detail: str,
        *,
        reason: str = "",
        errors: Sequence[FieldError] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(self.status_code, detail, errors=errors, retry_after_seconds=retry_after_seconds)
        self.reason = reason or detail


class BadUrlError(FetchError):
    """The URL cannot be used; *reason* says what is wrong with it and does not repeat it."""

    status_code, kind = 422, "bad_url"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the URL cannot be used: {reason}", reason=reason)


class AddressRefusedError(FetchError):
    """What the URL names may not be fetched from; the caller is not told which address it is."""

    status_code, kind = 403, "address_refused"

    def __init__(self, reason: str) -> None:
        super().__init__("the URL leads to an address that may not be fetched from", reason=reason)


class UnreachableError(FetchError):
    """
    Nobody answers at the address.

    The caller gets one text for all reasons: which names exist inside, and which ports are open, is not theirs to know.
    """

    status_code, kind = 502, "unreachable"

    def __init__(self, reason: str) -> None:
        super().__init__("the address cannot be reached", reason=reason)


class BadAnswerError(FetchError):
    """What came back cannot be used."""

    status_code, kind = 502, "bad_answer"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the address gave an answer that cannot be used: {reason}", reason=reason)


class RedirectError(BadAnswerError):
    """The address leads on to where it may not be followed."""

    kind = "redirect"


class TooLargeError(FetchError):
    """The answer has more than *max_bytes*, as sent or as unpacked."""

    status_code, kind = 413, "too_large"

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        super().__init__(f"what the address gave has more than {max_bytes} bytes")


class TooSlowError(FetchError):
    """The time for *step* is over."""

    status_code, kind = 504, "too_slow"

    def __init__(self, step: str) -> None:
        super().__init__("the address took too long to answer", reason=f"{step} took too long")


class BusyError(FetchError):
    """So many names are being looked up that one more would only wait."""

    status_code, kind = 503, "busy"

    def __init__(self) -> None:
        super().__init__("too many addresses are being fetched", retry_after_seconds=1)

"""How long an answer may be used again without asking, by RFC 9111, for a cache that many callers share."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

_DIRECTIVE = re.compile(r'([a-z-]+)(?:=(?:"([^"]*)"|([^\s,;]*)))?', re.ASCII)
_MAX_SECONDS = 365 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Freshness:
    """What an answer says about being kept."""

    storable: bool
    """False after ``no-store`` and ``private``, and where the answer depends on what nobody can compare."""
    seconds: float | None
    """How long it may be used without asking again; zero is always ask, None is for the one who keeps it to decide."""


def freshness_of(headers: Mapping[str, str]) -> Freshness:
    """Return what *headers*, names in lower case, say; what cannot be read counts as over already."""
    directives = {m[1]: m[2] or m[3] or "" for m in _DIRECTIVE.finditer(headers.get("cache-control", "").lower())}
    storable = not ({"no-store", "private"} & directives.keys() or "*" in headers.get("vary", ""))
    if "no-cache" in directives or not storable:
        return Freshness(storable, 0.0)
    lifetime = _lifetime(directives, headers)
    if lifetime is None:
        return Freshness(storable, None)
    return Freshness(storable, min(_MAX_SECONDS, max(0.0, lifetime - _seconds(headers.get("age", "0")))))


def _lifetime(directives: Mapping[str, str], headers: Mapping[str, str]) -> float | None:
    for name in ("s-maxage", "max-age"):
        if name in directives:
            return _seconds(directives[name])
    if "expires" not in headers:
        return None
    try:
        expires, date = (parsedate_to_datetime(headers[name]) for name in ("expires", "date"))
        return (expires - date).total_seconds()
    except (KeyError, ValueError, TypeError, OverflowError):
        # "0" and other broken dates are the usual way to say that it is over; RFC 9111 section 5.3.
        return 0.0


def _seconds(text: str) -> float:
    return float(text) if re.fullmatch(r"\d{1,10}", text.strip(), re.ASCII) else 0.0

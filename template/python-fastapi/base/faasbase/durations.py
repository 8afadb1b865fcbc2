"""Durations as of-watchdog reads them: whole seconds, or Go's syntax (https://pkg.go.dev/time#ParseDuration)."""

import re

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_DURATION = re.compile(rf"[+-]?(?:{_PART.pattern})+")
_MAX_LENGTH = 64


def parse_duration(text: str) -> float:
    """
    Return the seconds that *text* says: whole seconds (``15``) or a Go duration (``1m30s``).

    Raises:
        ValueError: *text* is neither; it is not repeated in the message.
    """
    if len(text) <= _MAX_LENGTH:
        if re.fullmatch(r"[+-]?[0-9]+", text):
            return float(text)
        if _DURATION.fullmatch(text):
            total = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
            return -total if text.startswith("-") else total
    raise ValueError("not a duration such as 15, 10s or 1m30s")


def milliseconds(seconds: float) -> int:
    """Return *seconds* as Redis takes times to live: whole, and never none, which it would refuse."""
    return max(1, round(seconds * 1000))

"""What ``CACHE_URL`` may say beside the place: ``redis://host/0?first_level_ttl=1s&max_value_bytes=65536``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..durations import parse_duration
from ..errors import SettingError

NAMES = frozenset({"deadline", "lease", "first_level_ttl", "max_value_bytes"})

_LONGEST_SECONDS = {"deadline": 10.0, "lease": 600.0, "first_level_ttl": 60.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheOptions:
    """How one cache behaves; durations are in seconds."""

    deadline: float = 0.25
    """The most that the cache adds to a call, all its steps together."""
    lease: float = 3.0
    """How long the others wait for a replica that has died while it was loading; a living one renews it."""
    first_level_ttl: float = 0.0
    """
    How long a value is also kept in this process; 0 is not at all.

    An invalidation by another replica is seen that much later, which is why nobody gets it unasked.
    """
    max_value_bytes: int = 1024 * 1024
    """Larger values are not cached: they would hold up everybody else's on the same server."""

    @property
    def step(self) -> float:
        """The deadline of one step: a miss takes two before its load, and what comes after it makes nobody wait."""
        return self.deadline / 2


def options_of(setting: str, texts: Mapping[str, str]) -> CacheOptions:
    """
    Read *texts*, options of a URL by name.

    Raises:
        SettingError: One of them cannot be used.
    """
    defaults = CacheOptions()
    return CacheOptions(
        deadline=_seconds(setting, texts, "deadline", defaults.deadline, least=0.001),
        lease=_seconds(setting, texts, "lease", defaults.lease, least=0.1),
        first_level_ttl=_seconds(setting, texts, "first_level_ttl", defaults.first_level_ttl, least=0.0),
        max_value_bytes=_count(setting, texts, "max_value_bytes", defaults.max_value_bytes),
    )


def _seconds(setting: str, texts: Mapping[str, str], name: str, default: float, *, least: float) -> float:
    if name not in texts:
        return default
    longest = _LONGEST_SECONDS[name]
    try:
        seconds = parse_duration(texts[name])
    except ValueError as exc:
        raise SettingError(setting, f"option {name} is {exc}") from None
    if not least <= seconds <= longest:
        raise SettingError(setting, f"option {name} must be from {least:g}s to {longest:g}s")
    return seconds


def _count(setting: str, texts: Mapping[str, str], name: str, default: int) -> int:
    text = texts.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) > 0):
        raise SettingError(setting, f"option {name} must be a whole number from 1")
    return int(text)

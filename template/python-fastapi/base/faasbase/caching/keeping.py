"""How long what a load comes to is kept: a value, none, or the news that there is nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..errors import Problem
from .entries import jittered
from .values import Packed, Unfit, pack_absent

STALE_AGAIN_SECONDS = 5.0
"""How long an old value is returned after a failed load before the next is tried: who fails needs a rest."""


@dataclass(frozen=True, slots=True)
class Keeping:
    """Times, in seconds."""

    ttl_seconds: float
    negative_ttl_seconds: float | None = None
    """For None, and for a `Problem` with status 404; None keeps the former as any value and the latter not at all."""
    stale_if_error_seconds: float = 0.0
    """How long after its time a value is still good enough where the load fails."""

    def __post_init__(self) -> None:
        check_times(self.ttl_seconds, self.negative_ttl_seconds, self.stale_if_error_seconds)

    def as_arguments(self) -> dict[str, Any]:
        """Return the times as `Cache.get_or_load` takes them."""
        return {
            "ttl_seconds": self.ttl_seconds,
            "negative_ttl_seconds": self.negative_ttl_seconds,
            "stale_if_error_seconds": self.stale_if_error_seconds,
        }

    def of_value(self, packed: Packed, value: object) -> Load:
        """Return *value* as it is kept."""
        if value is None and self.negative_ttl_seconds is not None:
            return Load(packed, jittered(self.negative_ttl_seconds), 0.0)
        stale = self.ttl_seconds + self.stale_if_error_seconds if self.stale_if_error_seconds else 0.0
        return Load(packed, jittered(self.ttl_seconds), stale)

    def of_error(self, error: BaseException) -> Load | None:
        """Return *error* as it is kept, if it is."""
        if self.negative_ttl_seconds is None or not (isinstance(error, Problem) and error.status == 404):
            return None
        return Load(pack_absent(error), jittered(self.negative_ttl_seconds), 0.0)

    def forgives(self, error: BaseException) -> bool:
        """Tell whether an old value may be returned in *error*'s place: not where it is the function's answer."""
        answer = isinstance(error, Problem) and error.status < 500
        return self.stale_if_error_seconds > 0 and isinstance(error, Exception) and not answer

    def of_stale(self, value: bytes) -> Load:
        """Return an old *value* as it is kept: not for long, and not in its own place a second time."""
        return Load(value, min(self.ttl_seconds, STALE_AGAIN_SECONDS), 0.0)


def check_times(ttl_seconds: float, negative_ttl_seconds: float | None = None, stale_seconds: float = 0.0) -> None:
    """
    Make sure that the times of a `Keeping` make sense.

    Raises:
        ValueError: One of them is not more than zero.
    """
    negative = ttl_seconds if negative_ttl_seconds is None else negative_ttl_seconds
    if not (ttl_seconds > 0 and negative > 0 and stale_seconds >= 0):
        raise ValueError("ttl_seconds and its like must be more than zero")


@dataclass(frozen=True, slots=True)
class Load:
    """What a load came to, and how long that is kept, and for the case of an error."""

    packed: Packed | Unfit[Any]
    ttl_seconds: float
    stale_seconds: float

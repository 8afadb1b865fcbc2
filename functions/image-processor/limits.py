"""The function's own settings, read from its environment at start."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from faasbase.durations import parse_duration
from faasbase.errors import SettingError

T = TypeVar("T", int, float)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of the machine the function takes."""

    workers: int = os.cpu_count() or 1
    """``IMAGE_WORKERS``: images that are worked on at a time; Pillow uses one core for each."""
    queue: int = 8
    """``IMAGE_QUEUE``: calls that may be uploading or waiting beside those; more get 429.  Each holds its upload."""
    wait_seconds: float = 10.0
    """``IMAGE_WAIT``: how long a call waits for its turn before it gets 429; must leave time to work."""
    max_megapixels: int = 50
    """``IMAGE_MAX_MEGAPIXELS``: largest source and result, and all images that are worked on at a time together."""
    max_upload_mib: int = 20
    """``IMAGE_MAX_UPLOAD_MIB``: largest body; the template's ``MAX_BODY_BYTES`` must be higher."""
    cache_seconds: float = 24 * 3600.0
    """``IMAGE_CACHE_TTL``: how long results are found again."""

    @property
    def max_pixels(self) -> int:
        return self.max_megapixels * 1_000_000

    @property
    def max_upload_bytes(self) -> int:
        return self.max_upload_mib * 1024 * 1024


def read_limits(environ: Mapping[str, str]) -> Limits:
    """
    Return the limits that *environ* sets.

    Raises:
        SettingError: One of them is no number, or not more than zero.
    """
    usual = Limits()

    def setting(name: str, parse: Callable[[str], T], default: T) -> T:
        text = environ.get(name, "").strip()
        try:
            value = parse(text) if text else default
        except ValueError:
            raise SettingError(name, "must be a number") from None
        if not value > 0:
            raise SettingError(name, "must be more than zero")
        return value

    return Limits(
        workers=setting("IMAGE_WORKERS", int, usual.workers),
        queue=setting("IMAGE_QUEUE", int, usual.queue),
        wait_seconds=setting("IMAGE_WAIT", parse_duration, usual.wait_seconds),
        max_megapixels=setting("IMAGE_MAX_MEGAPIXELS", int, usual.max_megapixels),
        max_upload_mib=setting("IMAGE_MAX_UPLOAD_MIB", int, usual.max_upload_mib),
        cache_seconds=setting("IMAGE_CACHE_TTL", parse_duration, usual.cache_seconds),
    )

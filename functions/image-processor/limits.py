"""The function's own settings, read from its environment at start."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import TypeVar

from faasbase.environment import Environment
from faasbase.errors import SettingError

T = TypeVar("T", int, float)

MAX_WORKERS = 4
"""More would need more memory than the stack file gives, whatever the machine has."""

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores(cgroup: Path = _CGROUP) -> int:
    """Return how many cores the container may use, from 1; the machine has more of them than its share."""
    cores = len(os.sched_getaffinity(0))
    try:
        # Version 2: https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files; version 1 has two files.
        if (cgroup / "cpu.max").exists():
            quota, period = (cgroup / "cpu.max").read_text().split()
        else:
            quota, period = ((cgroup / "cpu" / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        share = ceil(int(quota) / int(period))
    except (OSError, ValueError, ZeroDivisionError):
        # No limit is written as "max", or there are no such files.
        return cores
    return min(cores, share) if share > 0 else cores


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much of the machine the function takes."""

    workers: int = field(default_factory=lambda: min(usable_cores(), MAX_WORKERS))
    """``IMAGE_WORKERS``: images that are worked on at a time; Pillow uses one core for each."""
    queue: int = 8
    """``IMAGE_QUEUE``: calls that may be uploading or waiting beside those; more get 429."""
    wait_seconds: float = 10.0
    """``IMAGE_WAIT``: how long a call waits for its turn before it gets 429; must leave time to work."""
    max_megapixels: int = 50
    """``IMAGE_MAX_MEGAPIXELS``: largest source and result, and all images that are worked on at a time together."""
    max_upload_mib: int = 20
    """``IMAGE_MAX_UPLOAD_MIB``: largest body; the template's ``MAX_BODY_BYTES`` must be higher."""
    uploads_mib: int = 64
    """``IMAGE_UPLOADS_MIB``: all bodies that are in memory at a time together; one more gets 429."""
    cache_seconds: float = 24 * 3600.0
    """``IMAGE_CACHE_TTL``: how long results are found again."""
    url_seconds: float = 60.0
    """``IMAGE_URL_TTL``: how long an image that was fetched is used without asking its server; 0 is always ask."""

    @property
    def max_pixels(self) -> int:
        return self.max_megapixels * 1_000_000

    @property
    def max_upload_bytes(self) -> int:
        return self.max_upload_mib * 1024 * 1024

    @property
    def uploads_bytes(self) -> int:
        return self.uploads_mib * 1024 * 1024


def read_limits(environ: Mapping[str, str]) -> Limits:
    """
    Return the limits that *environ* sets.

    Raises:
        SettingError: One of them is no number, or not more than zero; or all bodies together are less than one.
    """
    usual, read = Limits(), Environment(environ)

    def count(name: str, default: int) -> int:
        return _above_zero(name, read.count(name, default))

    def seconds(name: str, default: float) -> float:
        return _above_zero(name, read.seconds(name, default))

    limits = Limits(
        workers=count("IMAGE_WORKERS", usual.workers),
        queue=count("IMAGE_QUEUE", usual.queue),
        wait_seconds=seconds("IMAGE_WAIT", usual.wait_seconds),
        max_megapixels=count("IMAGE_MAX_MEGAPIXELS", usual.max_megapixels),
        max_upload_mib=count("IMAGE_MAX_UPLOAD_MIB", usual.max_upload_mib),
        uploads_mib=count("IMAGE_UPLOADS_MIB", usual.uploads_mib),
        cache_seconds=seconds("IMAGE_CACHE_TTL", usual.cache_seconds),
        url_seconds=read.seconds("IMAGE_URL_TTL", usual.url_seconds),
    )
    if limits.uploads_mib < limits.max_upload_mib:
        raise SettingError("IMAGE_UPLOADS_MIB", "must be at least IMAGE_MAX_UPLOAD_MIB")
    return limits


def _above_zero(name: str, value: T) -> T:
    if not value > 0:
        raise SettingError(name, "must be more than zero")
    return value

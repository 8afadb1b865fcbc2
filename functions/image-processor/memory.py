"""Keep to the memory that the container has."""

import ctypes
from contextlib import suppress

from PIL import PngImagePlugin

_M_MMAP_THRESHOLD = -3
_LARGE_BYTES = 1024 * 1024
_MAX_TEXT_BYTES = 4 * 1024 * 1024


def bound_memory() -> None:
    """
    Give the memory of images back as soon as they are freed, and bound what a PNG may keep in its comments.

    glibc keeps what is freed in blocks of up to 32 MiB, and has a heap for each thread: a second poster would take half
    a gigabyte more than the first (https://man7.org/linux/man-pages/man3/mallopt.3.html, M_MMAP_THRESHOLD).
    """
    PngImagePlugin.MAX_TEXT_MEMORY = _MAX_TEXT_BYTES
    # Other C libraries have no such knob.
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)

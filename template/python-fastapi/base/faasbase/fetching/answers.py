"""What a fetch gives: status, headers and bytes, unpacked and counted."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field

from .errors import BadAnswerError, TooLargeError

_PIECE_BYTES = 64 * 1024
_GZIP = 31
"""zlib's window size with the gzip header expected."""


@dataclass(frozen=True, slots=True)
class Validators:
    """What an answer can be asked for again by, and the only URL that is told of it."""

    url: str = field(repr=False)
    etag: str | None = None
    last_modified: str | None = None

    @property
    def headers(self) -> list[tuple[str, str]]:
        pairs = (("If-None-Match", self.etag), ("If-Modified-Since", self.last_modified))
        return [(name, value) for name, value in pairs if value]


@dataclass(frozen=True, slots=True)
class Head:
    """An answer without its body."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    """Names in lower case; several of one name are joined by commas, as RFC 9110 section 5.3 has it."""
    url: str = field(repr=False)
    """Where it came from, after all redirects; it may hold secrets in its query."""

    @property
    def content_type(self) -> str:
        """The media type in lower case, without parameters; empty where the answer names none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def not_modified(self) -> bool:
        return self.status == 304

    @property
    def validators(self) -> Validators | None:
        """What to ask by whether the answer is still the same one; None where the server gave nothing."""
        etag, modified = self.headers.get("etag"), self.headers.get("last-modified")
        return Validators(self.url, etag, modified) if etag or modified else None

    def expect_success(self) -> None:
        """Raise `BadAnswerError` unless the status is one of success."""
        if not 200 <= self.status < 300:
            raise BadAnswerError(f"status {self.status}")


@dataclass(frozen=True, slots=True)
class Fetched(Head):
    """A whole answer."""

    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer(Head):
    """An answer whose body is still on its way; it is good as long as the ``async with`` block runs."""

    chunks: AsyncIterator[bytes]
    """The body piece by piece, once; raises the `FetchError` that ends it early."""

    @property
    def content_length(self) -> int | None:
        """What the body has as it is sent, where the server says so."""
        text = self.headers.get("content-length", "")
        return int(text) if text.isdecimal() else None


class Count:
    """Counts bytes up to a limit."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._total = max_bytes, 0

    def add(self, size_bytes: int) -> None:
        """Add *size_bytes*; TooLargeError where they are too many together."""
        self._total += size_bytes
        if self._total > self._max_bytes:
            raise TooLargeError(self._max_bytes)


class Plain:
    """Bytes that were not packed."""

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        yield chunk

    def check_end(self) -> None:
        return


class Gunzip:
    """Unpacks gzip (RFC 1952), several members in a row included, in pieces small enough to count in time."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_GZIP)
        self._begun = False

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        """Yield what *chunk* adds, at most 64 KiB at a time; BadAnswerError where it is damaged."""
        while chunk:
            if self._inflate.eof:
                self._inflate = zlib.decompressobj(_GZIP)
            self._begun = True
            try:
                piece = self._inflate.decompress(chunk, _PIECE_BYTES)
            except zlib.error:
                raise BadAnswerError("damaged gzip") from None
            chunk = self._inflate.unused_data if self._inflate.eof else self._inflate.unconsumed_tail
            if piece:
                yield piece

    def check_end(self) -> None:
        """Raise BadAnswerError where the bytes ended in the middle."""
        if self._begun and not self._inflate.eof:
            raise BadAnswerError("gzip that is cut short")


def decoder_of(encoding: str) -> Plain | Gunzip:
    """Return what undoes the content *encoding*; BadAnswerError where it is not one that was asked for."""
    if encoding in ("", "identity"):
        return Plain()
    if encoding in ("gzip", "x-gzip"):
        return Gunzip()
    raise BadAnswerError("an encoding that was not asked for")

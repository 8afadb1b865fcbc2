"""What is known of a stored object, and what its key may be."""

import re
from dataclasses import dataclass

from .errors import ObjectKeyError

MAX_KEY_BYTES = 512
MAX_PART_BYTES = 200
DEFAULT_CONTENT_TYPE = "application/octet-stream"

_CONTENT_TYPE = re.compile(r"[\w.+-]{1,64}/[\w.+-]{1,128}( ?; ?[\w.+-]{1,32}=[\w.+-]{1,64}){0,4}", re.ASCII)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object, as it was stored."""

    key: str
    size_bytes: int
    content_type: str
    sha256: str
    """Of its bytes, in hexadecimal; empty for one that something else has put into the bucket."""


def content_key(sha256: str) -> str:
    """Return the key of an object that is named by its content; spread over folders, which grow slow when large."""
    return f"sha256/{sha256[:2]}/{sha256}"


def check_key(key: str) -> str:
    """
    Return *key* if every back end can keep it: parts joined by single slashes, none hidden, no control characters.

    Raises:
        ObjectKeyError: It cannot; says why.
    """
    if not key:
        raise ObjectKeyError(key, "a key must not be empty")
    for part in key.split("/"):
        _check_part(key, part)
    _check_text(key, key)
    return key


def check_prefix(prefix: str) -> str:
    """Return *prefix* if a key may begin with it; the last part may be cut short."""
    for part in prefix.split("/")[:-1]:
        _check_part(prefix, part)
    _check_text(prefix, prefix)
    return prefix


def check_content_type(content_type: str) -> str:
    """Return *content_type* if it can be sent as a header as it is."""
    if not _CONTENT_TYPE.fullmatch(content_type):
        raise ValueError("content_type must be like image/png")
    return content_type


def _check_part(key: str, part: str) -> None:
    if not part:
        raise ObjectKeyError(key, "a key must not begin or end with a slash, nor have two in a row")
    if part.startswith("."):
        # Covers `.`, `..` and the store's own folders.
        raise ObjectKeyError(key, "no part of a key may begin with a dot")
    if len(part.encode("utf-8", "replace")) > MAX_PART_BYTES:
        raise ObjectKeyError(key, f"no part of a key may be longer than {MAX_PART_BYTES} bytes")


def _check_text(key: str, text: str) -> None:
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise ObjectKeyError(ascii(key), "a key must be valid Unicode") from None
    if length > MAX_KEY_BYTES:
        raise ObjectKeyError(key, f"a key must not be longer than {MAX_KEY_BYTES} bytes")
    if "\\" in text or not text.isprintable():
        raise ObjectKeyError(key, "a key must not hold backslashes or control characters")

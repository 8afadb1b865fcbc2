"""Text from outside: data by its charset, and what logs, spans and answers show of words that anyone may write."""

from __future__ import annotations

import re
from typing import Any

_MAX_CHARACTERS = 256
# Those of the web: another name may cost the one who looks it up much, and Python remembers it for ever.
_CHARSETS = re.compile(
    r"utf-?(8|16|16le|16be|32)|(us-)?ascii|iso-8859-([1-9]|1[013-6])|latin-?1|(windows-|cp)125[0-8]|koi8-[ru]"
    r"|shift_jis|euc-(jp|kr)|gbk|gb18030|gb2312|big5"
)


def decoded(content: bytes, content_type: Any) -> str:
    """
    Return *content* by the charset that *content_type* names, UTF-8 where it names none.

    Raises:
        ValueError: It is not in that charset, or nobody knows it; the message names none of it.
    """
    given = content_type.lower().partition("charset=")[2] if isinstance(content_type, str) else ""
    charset = given.partition(";")[0].strip(' "') or "utf-8"
    if not _CHARSETS.fullmatch(charset):
        raise ValueError("the event's data has an unknown charset")
    try:
        return content.decode(charset)
    except ValueError:
        raise ValueError("the event's data is no text of its charset") from None


def shown(value: Any, most: int = _MAX_CHARACTERS) -> str:
    """Return *value* as text that everything takes: bounded, and without halves of surrogate pairs."""
    text = str(value)
    if len(text) > most:
        text = f"{text[:most]}…"
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()

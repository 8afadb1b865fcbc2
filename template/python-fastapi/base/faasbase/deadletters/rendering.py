"""Dead letters as lines, as pages and as JSON; what is in them was written by strangers, and a terminal obeys."""

from __future__ import annotations

import json
from base64 import b64encode
from datetime import UTC, datetime
from typing import Any

from .letters import Stored

SHOWN_BYTES = 4096
_REASON_CHARACTERS = 80


def as_line(stored: Stored) -> str:
    """Return the letter in one line, nothing of its message in it."""
    letter = stored.letter
    counts = f"{letter.attempts} attempts, {letter.redrives} redrives"
    reason = letter.reason[:_REASON_CHARACTERS]
    return plain(f"{letter.id}  {_time(letter.died_at)}  {letter.destination}  {counts}  {letter.error}: {reason}")


def as_page(stored: Stored, *, full: bool) -> str:
    """Return all of the letter, of its content `SHOWN_BYTES` at most unless *full*."""
    letter = stored.letter
    fields = {name.replace("_", " "): plain(str(value)) for name, value in _fields(stored).items()}
    lines = [f"{name + ':':15} {value}" for name, value in fields.items()]
    if letter.key is not None:
        lines.append(f"{'key:':15} {_text(letter.key)}")
    lines += [f"header {plain(name)}: {_text(value or b'')}" for name, value in letter.headers]
    shown = letter.content if full else letter.content[:SHOWN_BYTES]
    rest = len(letter.content) - len(shown)
    return "\n".join([*lines, "", _text(shown, lines=True), *([f"... {rest} bytes more: --full"] if rest else []), ""])


def as_json(stored: Stored, *, content: bool) -> str:
    """Return the letter as one line of JSON; key, headers and content of its message are in it only for *content*."""
    document = _fields(stored)
    if content:
        letter = stored.letter
        document |= _bytes("key", letter.key)
        document["headers"] = [{"name": name, **_bytes("value", value)} for name, value in letter.headers]
        document |= _bytes("content", None if letter.tombstone or letter.truncated is not None else letter.content)
    # Escapes are ASCII: nothing in them moves a cursor.
    return json.dumps(document, ensure_ascii=True)


def plain(text: str) -> str:
    """Return *text* with nothing in it that a terminal acts upon."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in text)


def _fields(stored: Stored) -> dict[str, Any]:
    letter = stored.letter
    return {
        "id": letter.id,
        "system": letter.system,
        "destination": letter.destination,
        "position": letter.position,
        "attempts": letter.attempts,
        "redrives": letter.redrives,
        "error": letter.error,
        "reason": letter.reason,
        "function": letter.function,
        "died_at": _time(letter.died_at),
        "content_bytes": len(letter.content) if letter.truncated is None else letter.truncated,
        "truncated": letter.truncated is not None,
        "partition": stored.partition,
        "offset": stored.offset,
    }


def _bytes(name: str, value: bytes | None) -> dict[str, str | None]:
    if value is None:
        return {name: None}
    try:
        return {name: value.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{name}_base64": b64encode(value).decode("ascii")}


def _text(value: bytes, *, lines: bool = False) -> str:
    text = value.decode("utf-8", "backslashreplace")
    return "\n".join(map(plain, text.splitlines())) if lines else plain(text)


def _time(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
    except (OverflowError, ValueError, OSError):
        return str(seconds)

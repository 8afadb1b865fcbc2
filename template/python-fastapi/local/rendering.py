"""Log lines of functions for the eyes of who develops them: JSON made readable, tracebacks made short."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

LONGEST_ENTRY = 256 * 1024
"""Characters up to which a line is taken for a log entry."""
LONGEST_MESSAGE = 4000
LONGEST_VALUE = 200
LONGEST_LINE = 300
MOST_FIELDS = 30
MOST_LINES = 60
"""Lines of a traceback, of which the last are the telling ones."""
NOT_SHOWN = frozenset(
    {"time", "level", "message", "logger", "function", "trace_id", "span_id", "exception", "stack", "taskName"}
)
ACCESS = "faasbase.access"
IN_THE_MESSAGE = frozenset({"method", "path", "status"})
"""Fields of an access line that its message repeats."""
TRACEBACK = "Traceback (most recent call last):"
FRAME = re.compile(r'(?P<margin>[\s|]*)File "(?P<path>[^"]+)", line (?P<line>\d+)(?P<rest>.*)')
STAGED_PLACE = re.compile(r"(?<![\w/.-])function/(?P<inside>[\w/-]+\.py)(?=:\d)")
STAGED_PATH = r"[^\s'\"()]{0,300}/%s/app/function/(?P<inside>[\w/-]+\.py)"


@dataclass(frozen=True)
class Source:
    """Where the code of a process came from before it was staged."""

    instance: str
    """The name of the folder that it was staged into."""
    handler: Path
    project: Path

    def place(self, path: str) -> str | None:
        """Return the project's own path of a staged file; ``None`` for a file of anybody else."""
        _, staged, inside = path.partition(f"/{self.instance}/app/function/")
        return self.origin(inside) if staged else None

    def origin(self, inside: str) -> str:
        """Return where a file of the function's folder is kept."""
        path = self.handler / inside
        if not path.exists() and (self.project / inside).exists():
            # One of configuration.copy.
            path = self.project / inside
        return str(path.relative_to(self.project) if path.is_relative_to(self.project) else path)

    def mapped(self, text: str) -> str:
        """Return *text*, of bounded length, with places such as ``function/handler.py:3`` as the project has them."""
        text = _plain(text[:LONGEST_MESSAGE])
        for staged in (STAGED_PLACE, STAGED_PATH % re.escape(self.instance)):
            text = re.sub(staged, lambda match: self.origin(match["inside"]), text)
        return text


def log_entry(text: str) -> dict[str, Any] | None:
    """Return the fields of a JSON log line, which has a level and a message; ``None`` for any other line."""
    if not text.startswith("{") or len(text) > LONGEST_ENTRY:
        return None
    try:
        entry = json.loads(text)
    except (ValueError, RecursionError):
        return None
    known = isinstance(entry, dict) and isinstance(entry.get("level"), str) and isinstance(entry.get("message"), str)
    return entry if known else None


def readable(entry: dict[str, Any], source: Source) -> str:
    """Return a log entry as ``HH:MM:SS LEVEL message key=value``, its traceback below."""
    message = "\n  ".join(_plain(entry["message"][:LONGEST_MESSAGE]).split("\n"))
    head = " ".join([*_clock(entry.get("time")), _plain(entry["level"][:LONGEST_VALUE]).upper(), message])
    lines = [" ".join([head, *_fields(entry)])]
    for name in ("exception", "stack"):
        if isinstance(text := entry.get(name), str):
            lines += [f"  {line}" for line in condensed(text, source)]
    return "\n".join(lines)


def condensed(traceback: str, source: Source) -> list[str]:
    """Return a traceback's lines with the frames of the function's own code, and the last one whoever's it is."""
    shown: list[str] = []
    frame: list[str] = []
    margin, own = 0, False
    for line in (_plain(line[:LONGEST_LINE]) for line in traceback.splitlines()[-MOST_LINES:]):
        if match := FRAME.match(line):
            shown += frame if own else []
            margin, own = len(match["margin"]), source.place(match["path"]) is not None
            frame = [_frame(match, source)]
        elif frame and len(line) - len(line.lstrip(" |")) >= margin:
            frame.append(line)
        else:
            shown += [*frame, line]
            frame = []
    return [line for line in [*shown, *frame] if line.strip() != TRACEBACK]


def summary(traceback: list[str], source: Source) -> str:
    """Return a traceback in one line: the exception, and the last place of the function's own code."""
    places = [match for line in traceback if (match := FRAME.match(line)) and source.place(match["path"])]
    after = [line for line in traceback if line and not line.startswith((" ", TRACEBACK))]
    error = _plain((after or [""])[-1][:LONGEST_LINE])
    return f"{error} ({source.place(places[-1]['path'])}:{places[-1]['line']})" if places else error


def _frame(match: re.Match[str], source: Source) -> str:
    path = source.place(match["path"]) or match["path"].rpartition("/site-packages/")[2]
    return f"{match['margin']}{path}:{match['line']}{match['rest']}"


def _fields(entry: dict[str, Any]) -> Iterator[str]:
    left_out = NOT_SHOWN | (IN_THE_MESSAGE if entry.get("logger") == ACCESS else frozenset())
    # What the handler's author gave stands first.
    names = sorted((name for name in entry if name not in left_out), key="call_id".__eq__)
    for name in names[:MOST_FIELDS]:
        yield f"{_plain(name[:LONGEST_VALUE])}={_value(entry[name])}"
    if len(names) > MOST_FIELDS:
        yield "…"


def _value(value: object) -> str:
    bare = isinstance(value, str) and value and not set(value) & set(" =\"'")
    text = str(value) if bare else json.dumps(value, ensure_ascii=False)
    return _plain(text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…").replace("\n", "\\n")


def _clock(time: object) -> list[str]:
    """Return the time of day where the reader is; nothing if there is none."""
    try:
        return [f"{datetime.fromisoformat(str(time)).astimezone():%H:%M:%S}"]
    except (ValueError, OverflowError, OSError):
        return []


def _plain(text: str) -> str:
    """Return *text* without what could steer a terminal: such characters are shown as their escapes."""
    if text.isprintable():
        return text
    return "".join(
        each if each.isprintable() or each in "\n\t" else each.encode("unicode_escape").decode() for each in text
    )

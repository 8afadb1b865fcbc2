"""Logs as one JSON object a line on stdout: ids of the call and its trace, the users' own fields, no secrets."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sys
import time
from collections.abc import Mapping
from functools import lru_cache
from io import TextIOWrapper
from typing import Any, TextIO

from .context import current_call
from .redaction import Redactor
from .settings import Settings
from .tracing import current_trace

_STANDARD_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "taskName",
    "color_message",
}
# Records of these end in files of their own makers' interest; a function's log needs only what is wrong there.
_QUIET_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.access", "opentelemetry", "asyncio")
# Python refuses to write longer ones in decimal, which takes quadratic time.
_LONGEST_INTEGER_BITS = 2048


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON; ``extra=`` fields of the call become members of the object."""

    def __init__(self, function_name: str, redactor: Redactor) -> None:
        super().__init__()
        self._function_name = function_name
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _timestamp(record.created),
            "level": record.levelname.lower(),
            "message": self._redactor.text(_message(record)),
            "logger": record.name,
            "function": self._function_name,
            **_ids(),
        }
        for name, value in record.__dict__.items():
            if name not in _STANDARD_FIELDS:
                line[name] = self._redactor.value(name, value)
        if record.exc_info and record.exc_info[0]:
            line["exception"] = self._redactor.text(self.formatException(record.exc_info))
        if record.stack_info:
            line["stack"] = self._redactor.text(record.stack_info)
        try:
            return json.dumps(line, ensure_ascii=False, allow_nan=False, default=str)
        except ValueError:
            return json.dumps(_finite(line), ensure_ascii=False, default=str)


def configure(settings: Settings, environ: Mapping[str, str] | None = None, stream: TextIO | None = None) -> Redactor:
    """Send every record of every logger through one JSON handler on *stream* (stdout), at ``LOG_LEVEL``."""
    redactor = Redactor(settings.secrets_dir, environ, settings.redact_fields)
    if isinstance(sys.stdout, TextIOWrapper):
        # Half a surrogate pair, which UTF-8 has no bytes for, becomes the escape that JSON has for it.
        sys.stdout.reconfigure(errors="backslashreplace")
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter(settings.function_name, redactor))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    # Warnings of libraries would otherwise appear on stderr as lines that are no JSON.
    logging.captureWarnings(True)
    return redactor


class AccessLog:
    """
    Writes the one line that each answered call leaves.

    It is rendered here and not by `logging`, which would cost a small function a third of its throughput.
    """

    def __init__(self, stream: TextIO, function_name: str, redactor: Redactor) -> None:
        self._stream = stream
        self._redactor = redactor
        self._constant = f'"level": "info", "logger": "faasbase.access", "function": {json.dumps(function_name)}'

    def write(self, method: str, path: str, status: int, seconds: float, ids: Mapping[str, str]) -> None:
        """Write a line; *path* is without its query, which may hold secrets, and *ids* are hexadecimal or checked."""
        quoted = json.dumps(self._redactor.text(path), ensure_ascii=False)
        more = "".join(f', "{name}": "{value}"' for name, value in ids.items())
        line = (
            f'{{"time": "{_timestamp(time.time())}", {self._constant}, "message": "{method} {quoted[1:-1]} {status}", '
            f'"method": "{method}", "path": {quoted}, "status": {status}, "duration_seconds": {seconds:.6f}{more}}}\n'
        )
        # Who answers calls must go on doing so where nobody takes its log, as `logging` does.
        with contextlib.suppress(OSError):
            self._stream.write(line)
            self._stream.flush()


def _timestamp(seconds: float) -> str:
    return f"{_second(int(seconds))}.{int(seconds % 1 * 1000):03d}+00:00"


@lru_cache(maxsize=4)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        # `logging` would print the record with all its arguments on stderr, secrets included.
        return f"{record.msg} (its arguments do not fit the message)"


def _finite(value: Any) -> Any:
    """Return *value* with the numbers that JSON cannot write as text: ``NaN``, ``Infinity``, integers without end."""
    if isinstance(value, dict):
        return {name: _finite(member) for name, member in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return json.dumps(float(value))
    if isinstance(value, int) and value.bit_length() > _LONGEST_INTEGER_BITS:
        return hex(value)
    return value


def _ids() -> dict[str, str]:
    ids: dict[str, str] = {}
    if call := current_call():
        ids["call_id"] = call.call_id
    if trace := current_trace():
        ids["trace_id"], ids["span_id"] = trace.trace_id, trace.span_id
    return ids

"""Hide secrets in text that leaves the process: by the names of fields, by well-known shapes and by known values."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

MASK = "***"

_NAMES = (
    r"password|passwd|passphrase|secrets?|tokens?|authorization|cookie|api[-_]?key|access[-_]?key(?:[-_]?id)?"
    r"|private[-_]?key|credentials?|signature"
)
_SENSITIVE_NAME = re.compile(rf"(?:{_NAMES})$", re.IGNORECASE)
_BEARER = re.compile(r"\b(Bearer|Basic|Digest)\s{1,8}[\w.~+/=-]{4,}", re.IGNORECASE)
_USERINFO = re.compile(r"://[^\s/@\"']+@")
# What precedes the name is left out of the pattern: looking for it would take quadratic time on long lines.
_ASSIGNMENT = re.compile(rf"((?:{_NAMES})[\"']?\s{{0,3}}[:=]\s{{0,3}}(?:b?[\"'])?)([^\s\"',;&)}}\]]+)", re.IGNORECASE)

_SHORTEST_SECRET = 6
_RESCAN_SECONDS = 30.0
_MAX_SECRET_FILES = 256
_MAX_SECRET_BYTES = 64 * 1024
_MAX_DEPTH = 6


class Redactor:
    """
    Replaces what must not be seen by ``***``.

    Known values come from the files in *secrets_dir*, looked at again every half minute since they rotate, and from
    settings in *environ* that are named like secrets or are URLs with a password.
    """

    def __init__(
        self,
        secrets_dir: Path,
        environ: Mapping[str, str] | None = None,
        fields: Iterable[str] = (),
    ) -> None:
        self._secrets_dir = secrets_dir
        self._fields = frozenset(name.lower() for name in fields)
        self._from_settings = set(_secret_settings(environ or {}))
        self._known: re.Pattern[str] | None = None
        self._next_scan = 0.0

    def text(self, text: str) -> str:
        """Return *text* with every known secret and everything shaped like one masked."""
        if known := self._known_values():
            text = known.sub(MASK, text)
        text = _BEARER.sub(rf"\1 {MASK}", text)
        text = _USERINFO.sub(f"://{MASK}@", text)
        return _ASSIGNMENT.sub(rf"\1{MASK}", text)

    def value(self, name: str, value: Any, depth: int = 0) -> Any:
        """Return *value* of the field *name* fit for JSON, masked where its name or its content is sensitive."""
        if self._sensitive(name):
            return MASK
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        if depth >= _MAX_DEPTH:
            return MASK
        if isinstance(value, Mapping):
            return {str(k): self.value(str(k), v, depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value("", item, depth + 1) for item in value]
        return self.text(str(value))

    def _sensitive(self, name: str) -> bool:
        return name.lower() in self._fields or bool(_SENSITIVE_NAME.search(name))

    def _known_values(self) -> re.Pattern[str] | None:
        now = time.monotonic()
        if now >= self._next_scan:
            self._next_scan = now + _RESCAN_SECONDS
            values = self._from_settings | set(_secret_files(self._secrets_dir))
            longest_first = sorted(values, key=len, reverse=True)
            self._known = re.compile("|".join(map(re.escape, longest_first))) if values else None
        return self._known


def _secret_settings(environ: Mapping[str, str]) -> Iterable[str]:
    for name, value in environ.items():
        if _SENSITIVE_NAME.search(name):
            yield from _worth_hiding(value)
        elif "://" in value:
            yield from _worth_hiding(_password(value))


def _password(url: str) -> str:
    try:
        return urlsplit(url).password or ""
    except ValueError:
        return ""


def _secret_files(folder: Path) -> Iterable[str]:
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return
    for path in paths[:_MAX_SECRET_FILES]:
        try:
            with path.open("rb") as file:
                text = file.read(_MAX_SECRET_BYTES).decode("utf-8", "replace")
        except OSError:
            continue
        yield from _worth_hiding(text)
        # A PEM file leaks by the line as well as whole; its first and last lines are no secret.
        yield from (line for line in text.split() if len(line) > 2 * _SHORTEST_SECRET)


def _worth_hiding(value: str) -> Iterable[str]:
    value = value.strip()
    # Masking a value as short as `1` or `true` would make logs unreadable and hide nothing.
    if len(value) >= _SHORTEST_SECRET and value.lower() not in {"disabled", "enabled"}:
        yield value

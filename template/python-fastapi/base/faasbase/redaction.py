"""
Hide secrets in text that leaves the process: by the names of fields, by well-known shapes and by known values.

Everything here takes time linear in the length of the text, whatever the text is: anybody can have a long one logged.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from .secret_values import SHORTEST_SECRET, SecretFile, pieces_of, secret_files, values_of, worth_hiding
from .secrets import hidden_values

MASK = "***"

# Plural tokens with a number are what language models count.
_COUNTED = r"tokens(?![\"']?\s{0,3}[:=]\s{0,3}[\d.]{1,20}+(?![\w-]))"
_LINE_NAMES = r"authorization|cookies?"
_NAMES = (
    rf"password|passwd|passphrase|(?<=[_-])pass|pwd|secrets?|token|{_COUNTED}|jwt|credentials?|signature|session[-_]?id"
    r"|(?:api|secret|private|signing|encryption|access|account|master)[-_]?key|access[-_]?key[-_]?id"
)
_SENSITIVE_NAME = re.compile(rf"(?:{_NAMES}|{_LINE_NAMES})$", re.IGNORECASE)
_SHELLS_OWN = frozenset({"PWD", "OLDPWD"})

_SEPARATOR = r"(?:\\{0,4}[\"']\s{0,3}(?:[:=]{1,2}>?|,)|\s{0,3}[:=]{1,2}>?)\s{0,3}"
# No possessive groups: in Python before 3.11.5, which Debian 12 has, they match too much (cpython#106052).
_QUOTED = r"(b?)(\\{0,4}[\"'])(?:[^\"'\\\r\n]++|(?!\3)\\.|(?!\3)[\"'])+"
# A comma, bracket or quote in the middle may be the secret's own.
_BARE = r"(?:[^\s\"'&,;)}\]]++|[,;)}\]](?=[,;)}\]]{0,3}[^\s\"'&,;)}\]])|[\"'](?=\w))+"
# What precedes the name is left out of the patterns: looking for it would take quadratic time on long lines.
_LINE = re.compile(rf"(?=[ac])((?:{_LINE_NAMES}){_SEPARATOR})(?:{_QUOTED}|[^\r\n]++)", re.IGNORECASE)
# The names' first letters, ahead of them, halve the time that the search takes.
_ASSIGNMENT = re.compile(
    rf"(?=[acejmpst])((?:{_NAMES}){_SEPARATOR})(?:{_QUOTED}|[\[{{(][^\r\n]*+|{_BARE})", re.IGNORECASE
)
_BEARER = re.compile(r"([BbDd](?i:earer|asic|igest))\s{1,8}[^\s\"'<>,;&)}\]]{4,}")
_MASKED_BEARER = rf"\1 {MASK}"
_JWT = re.compile(r"eyJ(?<![\w-]eyJ)[\w-]{6,}+(?:\.[\w-]*+){2,4}")
# The second form is a password with a slash in it, which must not be the port of an URL with an @ in its path.
_USERINFO = re.compile(r"://(?:[^\s/\"']+|[^\s/@:\"'\[]*+:(?!\d{1,5}/)(?:[^\s\"':@]++|@|:(?!//))*)@")

_RESCAN_SECONDS = 30.0
_MAX_VALUES = 1024
_MAX_DEPTH = 6
_MAX_NAMES = 1024

_RUN = 4
_STRIDE = SHORTEST_SECRET - _RUN + 1
_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}")


class Redactor:
    """
    Replaces what must not be seen by ``***``.

    Known values come from settings in *environ* that are named like secrets or are URLs with a password, and from the
    files in *secrets_dir*: 256 files, 64 KiB of each and 1 MiB of all (small files first), 128 values a file, 1024 in
    all.  They are read again when one differs, every half minute; what the function reads of them is known at once.
    """

    def __init__(
        self,
        secrets_dir: Path,
        environ: Mapping[str, str] | None = None,
        fields: Iterable[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._secrets_dir = secrets_dir
        self._fields = frozenset(name.lower() for name in fields)
        self._from_settings = sorted(set(_secret_settings(environ or {}, secrets_dir)))
        self._files: list[SecretFile] = []
        self._used: tuple[str, ...] = ()
        self._known = _KnownValues(self._from_settings)
        self._clock, self._next_scan = clock, clock()

    def masks(self, name: str) -> bool:
        """Tell whether values of the field *name* are masked, or at least some of them, whatever is in them."""
        return name.lower() in self._fields or _names_a_secret(name)

    def text(self, text: str) -> str:
        """Return *text* with every known secret and everything shaped like one masked."""
        if self._clock() >= self._next_scan or hidden_values() is not self._used:
            self._look()
        if self._known.by_run:
            text = self._known.masked(text)
        if "eyJ" in text:
            text = _JWT.sub(MASK, text)
        # Whatever else is a space is not printable.
        if " " in text or not text.isprintable():
            text = _BEARER.sub(_MASKED_BEARER, text)
        if "://" in text:
            text = _USERINFO.sub(f"://{MASK}@", text)
        if ":" in text or "=" in text or "," in text:
            text = _LINE.sub(rf"\1\2\3{MASK}", text)
            text = _ASSIGNMENT.sub(rf"\1\2\3{MASK}", text)
        return text

    def value(self, name: str, value: Any, depth: int = 0) -> Any:
        """Return *value* of the field *name* fit for JSON, masked where its name or its content is sensitive."""
        if self.masks(name) and (name.lower() in self._fields or not _is_count(name, value)):
            return MASK
        if isinstance(value, str):
            return self.text(value)
        if value is None or isinstance(value, bool | int | float):
            return value
        if depth >= _MAX_DEPTH:
            return MASK
        if isinstance(value, Mapping):
            return {self.text(str(k)): self.value(str(k), v, depth + 1) for k, v in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value("", item, depth + 1) for item in value]
        return self.text(str(value))

    def _look(self) -> None:
        """Read the secrets again, if there are others."""
        used = hidden_values()
        self._next_scan = self._clock() + _RESCAN_SECONDS
        files = secret_files(self._secrets_dir)
        if files != self._files or used is not self._used:
            values = worth_hiding(chain.from_iterable(map(pieces_of, used)))
            self._known = _KnownValues(chain(self._from_settings, values, values_of(files)))
            self._files, self._used = files, used


class _KnownValues:
    """
    Finds any of many values in a text, at a cost that does not grow with their number.

    Of the text, runs of four characters at every third place are looked up.  A value of six characters or more covers
    one of them wherever it stands, so that only values which share a run with the text are searched for.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self.by_run: dict[tuple[str, ...], list[str]] = {}
        for value in islice(values, _MAX_VALUES):
            # Of the middle, since many secrets of one kind begin or end alike.
            middle = (len(value) - SHORTEST_SECRET) // 2
            for start in range(middle, middle + _STRIDE):
                self.by_run.setdefault(tuple(value[start : start + _RUN]), []).append(value)

    def masked(self, text: str) -> str:
        runs = zip(*(text[start::_STRIDE] for start in range(_RUN)), strict=False)
        if found := self.by_run.keys() & runs:
            # A value that holds another one goes first, or its rest would stay.
            for value in sorted({value for run in found for value in self.by_run[run]}, key=len, reverse=True):
                text = text.replace(value, MASK)
        return text


@lru_cache(_MAX_NAMES)
def _names_a_secret(name: str) -> bool:
    return _SENSITIVE_NAME.search(name) is not None


def _is_count(name: str, value: Any) -> bool:
    number = isinstance(value, int | float) or (isinstance(value, str) and value.isdigit())
    return number and name.lower().endswith("tokens")


def _secret_settings(environ: Mapping[str, str], secrets_dir: Path) -> Iterator[str]:
    for name, value in environ.items():
        if name.upper().endswith("_HEADERS"):
            yield from worth_hiding(_header_values(value))
        elif _SENSITIVE_NAME.search(name) and name not in _SHELLS_OWN and not _is_count(name, value):
            # A name of secrets may stand in any log; what names none may be one itself, put in the wrong place.
            if not _names_secrets(value, secrets_dir):
                yield from worth_hiding([value])
        elif "://" in value:
            yield from worth_hiding(_passwords(value))


def _names_secrets(value: str, secrets_dir: Path) -> bool:
    return all(_FILE_NAME.fullmatch(name) and (secrets_dir / name).is_file() for name in value.split(","))


def _header_values(setting: str) -> Iterator[str]:
    """Yield the values in ``name=value,name=value``, as written, decoded, and without the scheme before them."""
    for pair in setting.split(","):
        value = pair.partition("=")[2].strip()
        decoded = unquote(value)
        yield from (value, decoded, decoded.rpartition(" ")[2])


def _passwords(setting: str) -> Iterator[str]:
    """Yield the passwords of one URL or of several with commas between them, as written and decoded."""
    for url in {setting, *setting.split(",")}:
        rest = url.partition("://")[2]
        # No URL may have a slash in its password, and many do: hence the second, up to the last @ of all.
        for part in (rest.partition("/")[0], rest):
            password = part.rpartition("@")[0].partition(":")[2]
            yield from (password, unquote(password))

"""
Hide secrets in text that leaves the process: by the names of fields, by well-known shapes and by known values.

Everything here takes time linear in the length of the text, whatever the text is: anybody can have a long one logged.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple
from urllib.parse import unquote

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
_JWT = re.compile(r"eyJ(?<![\w-]eyJ)[\w-]{6,}+(?:\.[\w-]*+){2,4}")
# The second form is a password with a slash in it, which must not be the port of an URL with an @ in its path.
_USERINFO = re.compile(r"://(?:[^\s/\"']+|[^\s/@:\"'\[]*+:(?!\d{1,5}/)(?:[^\s\"':@]++|@|:(?!//))*)@")

_SHORTEST_SECRET = 6
_RESCAN_SECONDS = 30.0
_MAX_SECRET_FILES = 256
_MAX_SECRET_BYTES = 64 * 1024
_MAX_SCANNED_BYTES = 1024 * 1024
_MAX_VALUES_OF_FILE = 128
_MAX_VALUES = 1024
_MAX_DEPTH = 6

_RUN = 4
_STRIDE = _SHORTEST_SECRET - _RUN + 1
_PUBLIC_PEM = ("CERTIFICATE", "PUBLIC KEY", "CERTIFICATE REQUEST", "CRL", "PARAMETERS")
_PIECE = re.compile(rf"[^\s\"',;=]{{{2 * _SHORTEST_SECRET + 1},}}=*")


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
        self._from_settings = sorted(set(_secret_settings(environ or {})))
        self._files: list[_SecretFile] = []
        self._used: tuple[str, ...] = ()
        self._known = _KnownValues(self._from_settings)
        self._clock, self._next_scan = clock, clock()

    def text(self, text: str) -> str:
        """Return *text* with every known secret and everything shaped like one masked."""
        text = self._known_values().masked(text)
        text = _BEARER.sub(rf"\1 {MASK}", _JWT.sub(MASK, text))
        if "://" in text:
            text = _USERINFO.sub(f"://{MASK}@", text)
        if ":" in text or "=" in text or "," in text:
            text = _LINE.sub(rf"\1\2\3{MASK}", text)
            text = _ASSIGNMENT.sub(rf"\1\2\3{MASK}", text)
        return text

    def value(self, name: str, value: Any, depth: int = 0) -> Any:
        """Return *value* of the field *name* fit for JSON, masked where its name or its content is sensitive."""
        if self._sensitive(name, value):
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

    def _sensitive(self, name: str, value: Any) -> bool:
        if name.lower() in self._fields:
            return True
        return bool(_SENSITIVE_NAME.search(name)) and not _is_count(name, value)

    def _known_values(self) -> _KnownValues:
        now, used = self._clock(), hidden_values()
        if now >= self._next_scan or used is not self._used:
            self._next_scan = now + _RESCAN_SECONDS
            files = _secret_files(self._secrets_dir)
            if files != self._files or used is not self._used:
                values = _worth_hiding(chain.from_iterable(map(_values, used)))
                self._known = _KnownValues(chain(self._from_settings, values, _contents(files)))
                self._files, self._used = files, used
        return self._known


class _KnownValues:
    """
    Finds any of many values in a text, at a cost that does not grow with their number.

    Of the text, runs of four characters at every third place are looked up.  A value of six characters or more covers
    one of them wherever it stands, so that only values which share a run with the text are searched for.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._by_run: dict[tuple[str, ...], list[str]] = {}
        for value in islice(values, _MAX_VALUES):
            # Of the middle, since many secrets of one kind begin or end alike.
            middle = (len(value) - _SHORTEST_SECRET) // 2
            for start in range(middle, middle + _STRIDE):
                self._by_run.setdefault(tuple(value[start : start + _RUN]), []).append(value)

    def masked(self, text: str) -> str:
        runs = zip(*(text[start::_STRIDE] for start in range(_RUN)), strict=False)
        if found := self._by_run.keys() & runs:
            # A value that holds another one goes first, or its rest would stay.
            for value in sorted({value for run in found for value in self._by_run[run]}, key=len, reverse=True):
                text = text.replace(value, MASK)
        return text


def _is_count(name: str, value: Any) -> bool:
    number = isinstance(value, int | float) or (isinstance(value, str) and value.isdigit())
    return number and name.lower().endswith("tokens")


def _secret_settings(environ: Mapping[str, str]) -> Iterator[str]:
    for name, value in environ.items():
        if name.upper().endswith("_HEADERS"):
            yield from _worth_hiding(_header_values(value))
        elif _SENSITIVE_NAME.search(name) and name not in _SHELLS_OWN and not _is_count(name, value):
            yield from _worth_hiding([value])
        elif "://" in value:
            yield from _worth_hiding(_passwords(value))


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


class _SecretFile(NamedTuple):
    size: int
    path: str
    inode: int
    changed_ns: int


def _secret_files(folder: Path) -> list[_SecretFile]:
    """Return the files of *folder* with what tells that one has changed."""
    try:
        with os.scandir(folder) as entries:
            visible = (entry for entry in entries if not entry.name.startswith("."))
            return sorted(filter(None, map(_state, islice(visible, _MAX_SECRET_FILES))))
    except OSError:
        return []


def _state(entry: os.DirEntry[str]) -> _SecretFile | None:
    try:
        status = entry.stat()
    except OSError:
        return None
    # Opening a pipe would wait for its writer.
    regular = S_ISREG(status.st_mode)
    return _SecretFile(status.st_size, entry.path, status.st_ino, status.st_ctime_ns) if regular else None


def _contents(files: Iterable[_SecretFile]) -> Iterator[str]:
    left = _MAX_SCANNED_BYTES
    for secret in files:
        try:
            with Path(secret.path).open("rb") as file:
                content = file.read(min(_MAX_SECRET_BYTES, left))
        except OSError:
            continue
        left -= len(content)
        yield from islice(_worth_hiding(_values(content.decode("utf-8", "replace"))), _MAX_VALUES_OF_FILE)


def _values(text: str) -> Iterator[str]:
    """Yield a secret whole, then what else it leaks by: lines of private PEM blocks, long words; nothing public."""
    prose, *blocks = text.replace("\\n", "\n").split("-----BEGIN ")
    lines: list[str] = []
    for block in blocks:
        label, _, rest = block.partition("-----")
        body, _, after = rest.partition("-----END ")
        prose += after.partition("-----")[2]
        lines += [] if label.endswith(_PUBLIC_PEM) else body.split()
    structured = prose.lstrip().startswith(("{", "["))
    if lines or structured or not blocks:
        yield text
    yield from (line for line in lines if len(line) > 2 * _SHORTEST_SECRET)
    # Between PEM blocks stand the names of their owners; in JSON, other secrets.
    if structured or not blocks:
        yield from (piece[0] for piece in _PIECE.finditer(prose))


def _worth_hiding(values: Iterable[str]) -> Iterator[str]:
    # Masking a value as short as `1` or `true` would make logs unreadable and hide nothing.
    stripped = (value.strip() for value in values)
    yield from (v for v in stripped if len(v) >= _SHORTEST_SECRET and v.lower() not in {"disabled", "enabled"})

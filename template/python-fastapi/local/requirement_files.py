"""A requirements file and those that it includes, taken at one moment: what is installed is what was looked at."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NAMING = re.compile(r"\s*(?P<option>-r|--requirement|-c|--constraint|-f|--find-links)[\s=]*(?P<named>[^\s=].*)")
LINKS = ("-f", "--find-links")
FIRST = "requirements.txt"


@dataclass(frozen=True)
class RequirementFiles:
    """Texts by the names that `write` gives them; where one includes another, it does so by that name."""

    texts: Mapping[str, str]

    @property
    def wanted(self) -> bytes:
        """Return the lines that ask for something, of all files; b"" if none does."""
        return "\n".join(line for text in self.texts.values() for line in _wanted_lines(text)).encode(
            errors="surrogateescape"
        )

    def write(self, folder: Path) -> Path:
        """Write the files into the new *folder*, and return the path of the first."""
        folder.mkdir()
        for name, text in self.texts.items():
            (folder / name).write_text(text, encoding="utf-8", errors="surrogateescape")
        return folder / FIRST


def read_requirements(path: Path) -> RequirementFiles:
    """Read *path*, which may be absent, and every file that it names with ``-r`` or ``-c``."""
    names: dict[Path, str] = {path.resolve(): FIRST}
    texts: dict[str, str] = {}
    waiting = [path]
    while waiting:
        file = waiting.pop(0)
        lines = [_with_names(line, file.parent, names, waiting) for line in _text(file).splitlines()]
        texts[names[file.resolve()]] = "\n".join([*lines, ""])
    return RequirementFiles(texts)


def _text(path: Path) -> str:
    if not path.exists():
        return ""
    # Whatever the bytes are: pip is the one to complain.
    return path.read_bytes().decode("utf-8-sig", "surrogateescape")


def _with_names(line: str, folder: Path, names: dict[Path, str], waiting: list[Path]) -> str:
    """Return *line* with the path it names as it is from the copy, and note a file that is still to be read."""
    match = NAMING.fullmatch(line)
    named = _first_word(match["named"]) if match else None
    if match is None or named is None or "://" in named:
        return line
    path = (folder / named).resolve()
    if match["option"] in LINKS:
        # pip takes this one from the file's folder if it is there, and from the working folder if not.
        return f"{match['option']} {shlex.quote(str(path))}" if path.exists() else line
    if path.is_file() and path not in names:
        names[path] = f"included-{len(names)}.txt"
        waiting.append(path)
    return f"{match['option']} {shlex.quote(names.get(path, str(path)))}"


def _first_word(text: str) -> str | None:
    try:
        return next(iter(shlex.split(text, comments=True)), None)
    except ValueError:
        return None


def _wanted_lines(text: str) -> list[str]:
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line and not line.startswith("#")]

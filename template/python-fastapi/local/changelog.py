"""What is new in a changelog, as https://keepachangelog.com has it: sections by version, entries in them."""

from __future__ import annotations

import re
from itertools import takewhile

HEADING = re.compile(r"## +\[?([^\]\s]+)")
BEGIN = ("## ", "### ", "- ", "* ")
LINK = re.compile(r"\[[^\]]+\]: ")


def new_entries(text: str, before: str | None, version: str) -> list[str]:
    """
    Return the headings and entries of *text* that the changelog *before* did not have, in their order.

    Where that one is unknown, they are what stands above the section of *version*, or all without such a section.
    """
    entries = _entries(text)
    if before is None:
        return list(takewhile(lambda entry: _version_of(entry) != version, entries))
    known = set(_entries(before))
    return _without_empty([entry for entry in entries if entry.startswith("#") or entry not in known], known)


def _entries(text: str) -> list[str]:
    """Return headings and entries, each with its own further lines; what stands above the first is about the file."""
    entries: list[str] = []
    for line in text.splitlines():
        if line.startswith(BEGIN):
            entries.append(line.rstrip())
        elif entries and line.strip() and not entries[-1].startswith("#") and not LINK.match(line):
            entries[-1] += f"\n{line.rstrip()}"
    return entries


def _version_of(entry: str) -> str | None:
    found = HEADING.match(entry)
    return found[1] if found else None


def _without_empty(entries: list[str], known: set[str]) -> list[str]:
    """Leave out the headings that nothing new stands under, but for a section that is new itself."""
    kept: list[str] = []
    for entry in reversed(entries):
        below = kept[-1] if kept else "## "
        empty = entry.startswith("#") and _level(below) <= _level(entry)
        if not empty or (entry.startswith("## ") and entry not in known):
            kept.append(entry)
    return kept[::-1]


def _level(entry: str) -> int:
    """Return how deep *entry* stands: 2 for a section, 3 for a part of one, deeper for text."""
    return len(entry) - len(entry.lstrip("#")) or 9

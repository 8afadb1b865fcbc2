"""Pinned packages of lock files, and what differs between two sets of them."""

from __future__ import annotations

import re
from collections.abc import Mapping

PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)


def read_pins(text: str) -> dict[str, str]:
    """Return the version of each package that a lock file pins; several where it differs between Pythons."""
    versions: dict[str, list[str]] = {}
    for name, version in PIN.findall(text):
        versions.setdefault(name, []).append(version)
    return {name: ", ".join(dict.fromkeys(found)) for name, found in versions.items()}


def changed_pins(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """Return a line for each package that is pinned differently *there*."""
    return [
        _difference(name, here.get(name), there.get(name))
        for name in sorted({*here, *there})
        if here.get(name) != there.get(name)
    ]


def _difference(name: str, old: str | None, new: str | None) -> str:
    if old is None:
        return f"{name} {new} is added"
    if new is None:
        return f"{name} {old} is removed"
    return f"{name} {old} → {new}"

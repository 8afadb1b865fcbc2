"""Tell what an update of this template would bring, by what it was pulled from."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from changelog import new_entries
from pins import changed_pins, read_pins
from repositories import RepositoryError, address_of, clone, commit_of, file_at, without_credentials

LOCKS = {
    "base/requirements.txt": "pins of every image",
    "base/requirements-testing.txt": "pins of tests",
    "local/requirements.txt": "pins of local",
}
VERSION = re.compile(r'^__version__ = "([^"]+)"', re.MULTILINE)
CHANGELOG = "CHANGELOG.md"
NOT_THE_TEMPLATES = re.compile(r"(^|/)(meta\.json$|__pycache__/|\.[^/]*_cache/|[^/]*\.egg-info/)")
"""What faas-cli and Python leave in the folder."""
SHOWN_COMMIT = 12
TITLE_WIDTH = 20


class UnknownError(Exception):
    """What an update brings cannot be told; the message is one line."""


@dataclass(frozen=True)
class Origin:
    """Where a template was pulled from, as faas-cli's ``meta.json`` says."""

    repository: str
    ref: str
    commit: str


def tell(template: Path, ref: str, say: Callable[[str], None]) -> None:
    """
    Say what pulling *template* again would change, at the default branch of its repository or at *ref*.

    Raises:
        UnknownError: It cannot be told.
    """
    origin = read_origin(template / "meta.json")
    with tempfile.TemporaryDirectory(prefix="outdated-", ignore_cleanup_errors=True) as folder:
        fetched = Path(folder) / "repository"
        try:
            # faas-cli was told a path from the project's folder: this one is <project>/template/<name>.
            clone(address_of(origin.repository, template.parents[1]), ref, fetched)
            lines = list(_report(template, origin, fetched, ref))
        except (RepositoryError, OSError) as error:
            raise UnknownError(printable(" ".join(str(error).split()))) from error
    for line in lines:
        say(printable(line))


def read_origin(path: Path) -> Origin:
    """Read ``meta.json``; raise `UnknownError` where there is none that faas-cli has written."""
    try:
        meta = json.loads(path.read_text())
        found = [
            meta[name] if name == "repository" else meta.get(name) or "" for name in ("repository", "ref_name", "sha")
        ]
    except FileNotFoundError as error:
        raise UnknownError(f"{path} is not there: this template was not pulled by faas-cli template pull") from error
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnknownError(f"{path} does not name a repository as faas-cli writes it") from error
    if not all(isinstance(value, str) for value in found):
        raise UnknownError(f"{path} does not name a repository as faas-cli writes it")
    return Origin(*found)


def printable(text: str) -> str:
    """Return *text* without what a terminal would obey."""
    return "".join(character if character.isprintable() or character == "\n" else "?" for character in text)


def _report(template: Path, origin: Origin, fetched: Path, ref: str) -> Iterator[str]:
    new = fetched / "template" / template.name.partition("@")[0]
    source = without_credentials(origin.repository)
    if not new.is_dir():
        raise UnknownError(f"{source} has no {new.relative_to(fetched)} at {ref or 'its default branch'}")
    here = f"{origin.ref} {origin.commit[:SHOWN_COMMIT]}".strip() or "unknown"
    there = f"{ref} {commit_of(fetched)[:SHOWN_COMMIT]}".strip()
    yield from _titled("template", [source, f"{here} → {there}"])
    changes = list(_changes(template, new))
    yield from changes or ["nothing has changed"]
    yield from _changelog(origin, fetched, _version(template))
    # faas-cli pins no local path.
    if changes and not (ref and (template.parents[1] / origin.repository).is_dir()):
        yield from _titled("to take it", [f"faas-cli template pull {source}{'#' if ref else ''}{ref}"])


def _changes(here: Path, there: Path) -> Iterator[str]:
    versions = [_version(here), _version(there)]
    yield from _titled("faasbase", [" → ".join(dict.fromkeys(versions))] if versions[0] != versions[1] else [])
    told: set[str] = set()
    for name, title in LOCKS.items():
        lines = changed_pins(*(read_pins(_text(folder / name)) for folder in (here, there)))
        # The locks agree: a package of two of them is told once.
        yield from _titled(title, [line for line in lines if line not in told])
        told.update(lines)
    changed = sorted(_changed_files(_files(here), _files(there)))
    yield from _titled("files", _by_folder(changed))
    handed_out = [name for name in changed if name.startswith("function/")]
    # Functions that were made from it keep theirs.
    yield from _titled("a new function", [f"has another {', '.join(handed_out)}"] if handed_out else [])


def _changelog(origin: Origin, fetched: Path, version: str) -> Iterator[str]:
    text = _text(fetched / CHANGELOG)
    before = file_at(fetched, origin.commit, CHANGELOG)
    if entries := new_entries(text, before, version):
        yield from ["", *entries, ""]


def _titled(title: str, lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield f"{'' if number else title:{TITLE_WIDTH}}{line}"


def _by_folder(changed: list[str]) -> list[str]:
    """Return the names of files at the top, and a count for each folder."""
    counts: dict[str, int] = {}
    for name in changed:
        folder, slash, _ = name.partition("/")
        counts[folder + slash] = counts.get(folder + slash, 0) + 1
    return [f"{name} ({count})" if name.endswith("/") else name for name, count in sorted(counts.items())]


def _changed_files(here: Mapping[str, bytes], there: Mapping[str, bytes]) -> set[str]:
    return {name for name in {*here, *there} if here.get(name) != there.get(name)}


def _files(folder: Path) -> dict[str, bytes]:
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in names.items() if not NOT_THE_TEMPLATES.search(name)}


def _version(template: Path) -> str:
    found = VERSION.search(_text(template / "base" / "faasbase" / "__init__.py"))
    return found[1] if found else "unknown"


def _text(path: Path) -> str:
    return path.read_bytes().decode(errors="replace") if path.is_file() else ""

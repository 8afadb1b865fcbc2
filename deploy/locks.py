"""
The lock files: every package that images, tests and the embedded OpenFaaS install, pinned and hashed.

``python -m deploy.locks`` renews them, ``python -m deploy.locks outdated`` tells what that would change, and what keeps
newer versions out.  The base's lock comes first, with every extra but ``testing``; what tests and tools need must agree
with it.
"""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = Path("template", "python-fastapi")
BASE = TEMPLATE / "base"
BASE_LOCK = BASE / "requirements.txt"
TESTING_LOCK = BASE / "requirements-testing.txt"
TESTING = "testing"
"""The extra that no image ships."""
UV = (sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--upgrade", "--universal", "--python-version", "3.11")
# Wheels only: images have no compiler, and building a package to look at it would run its code.
WHEELS = ("--only-binary", ":all:", "--no-binary", "faasbase")
PLAIN = (*WHEELS, "--no-header", "--no-annotate", "--no-emit-package", "faasbase")
RESOLVE_SECONDS = 300.0

# The template stands alone and is no package: its reading of lock files is taken by its path.
_PINS = runpy.run_path(str(ROOT / TEMPLATE / "local" / "pins.py"))
read_pins: Callable[[str], dict[str, str]] = _PINS["read_pins"]
changed_pins: Callable[[Mapping[str, str], Mapping[str, str]], list[str]] = _PINS["changed_pins"]


class ResolveError(Exception):
    """The resolver found no set of versions; the message is its own."""


@dataclass(frozen=True)
class Lock:
    """A lock file: what goes into it, as uv is asked for it, and the lock files that it must agree with."""

    path: Path
    sources: Sequence[str]
    constraints: Sequence[Path] = ()


def locks(root: Path) -> list[Lock]:
    """Return the lock files of the project at *root*, each after those that it must agree with."""
    project = tomllib.loads((root / BASE / "pyproject.toml").read_text())["project"]
    shipped = [flag for extra in project["optional-dependencies"] if extra != TESTING for flag in ("--extra", extra)]
    pyproject = str(BASE / "pyproject.toml")
    return [
        Lock(BASE_LOCK, [*shipped, pyproject]),
        Lock(TESTING_LOCK, ["--extra", TESTING, pyproject], [BASE_LOCK]),
        Lock(Path("tests", "requirements.txt"), ["--group", "dev"], [BASE_LOCK, TESTING_LOCK]),
        Lock(Path("bench", "requirements.txt"), ["--group", "bench"], [BASE_LOCK, TESTING_LOCK]),
        Lock(TEMPLATE / "local" / "requirements.txt", ["--group", "local"], [BASE_LOCK]),
    ]


def renew(root: Path) -> None:
    """Resolve the lock files of *root* anew, all or none; raise `ResolveError` where no versions agree."""
    with tempfile.TemporaryDirectory(prefix="locks-") as folder:
        resolve_locks(root, Path(folder))
        for lock in locks(root):
            text = Path(folder, lock.path).read_text()
            # A file that is written again looks changed to make, which would install everything anew.
            if not (root / lock.path).exists() or (root / lock.path).read_text() != text:
                (root / lock.path).write_text(text)


def resolve_locks(root: Path, target: Path) -> None:
    """Resolve the lock files of *root* anew and write them below *target*; raise `ResolveError`."""
    for lock in locks(root):
        (target / lock.path).parent.mkdir(parents=True, exist_ok=True)
        constraints = [flag for path in lock.constraints for flag in ("--constraint", str(target / path))]
        text = resolve(root, *PLAIN, "--generate-hashes", *constraints, *lock.sources)
        (target / lock.path).write_text(text)


def outdated(root: Path) -> Iterator[str]:
    """Say what `renew` would change in the lock files of *root*, and what keeps newer versions out; change nothing."""
    with tempfile.TemporaryDirectory(prefix="locks-") as folder:
        target = Path(folder)
        resolve_locks(root, target)
        now, renewed = pins(root, root), pins(root, target)
        yield from [f"make lock: {line}" for line in changed_pins(now, renewed)]
        for name, newest in _newest(root, target, renewed).items():
            reason = _reason(root, target, f"{name}=={newest.split(', ')[-1]}")
            yield f"kept out: {name} {newest}, {renewed[name]} is pinned\n    {reason}"


def pins(root: Path, target: Path) -> dict[str, str]:
    """Return every pin of the lock files that *root* has, as they are below *target*."""
    texts = [(target / lock.path).read_text() for lock in locks(root)]
    return {name: version for text in texts for name, version in read_pins(text).items()}


def resolve(root: Path, *arguments: str) -> str:
    """Run the resolver in *root* and return the lock that it prints; raise `ResolveError`."""
    done = subprocess.run(
        [*UV, *arguments], cwd=root, capture_output=True, text=True, timeout=RESOLVE_SECONDS, check=False
    )
    if done.returncode:
        raise ResolveError(done.stderr.strip())
    return done.stdout


def _newest(root: Path, target: Path, renewed: Mapping[str, str]) -> dict[str, str]:
    """Return the newest version of each package that is newer than what all bounds together allow."""
    names = target / "names.in"
    names.write_text("\n".join(renewed))
    newest = read_pins(resolve(root, *PLAIN, "--no-deps", str(names)))
    # A package may have a version for each Python: any of them will do.
    return {
        name: version for name, version in newest.items() if not {*version.split(", ")} & {*renewed[name].split(", ")}
    }


def _reason(root: Path, target: Path, wanted: str) -> str:
    """Return why *wanted* cannot be had, in the resolver's words: the bounds, and whose they are."""
    constraint = target / "wanted.txt"
    constraint.write_text(wanted)
    for lock in locks(root):
        try:
            resolve(root, *PLAIN, "--constraint", str(constraint), *lock.sources)
        except ResolveError as error:
            return re.sub(r"^.*?(?=Because )", "", " ".join(str(error).split()))
    return "together with the other locks only"


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Run the command and return the exit status."""
    try:
        if arguments == ["outdated"]:
            print("\n".join(outdated(root)) or "every package is pinned at its newest version")
        else:
            renew(root)
    except ResolveError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

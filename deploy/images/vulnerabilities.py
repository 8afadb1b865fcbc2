"""
Look for known vulnerabilities by what the registries offer: advisories on Python packages, Debian's security updates.

Each look says what it found, or why it could not look: silence is never taken for safety.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from cyclonedx.model.bom import Bom
from packageurl import PackageURL

from .engine import Engine, EngineError

LOOK_SECONDS = 180.0
SOCKET_SECONDS = 10
SHOWN_NAMES = 3
# Security updates are looked for even where the image's own sources leave them out.  A source that cannot be read is an
# error here, which apt-get does not make of it by itself.
DEBIAN_LOOK = """\
. /etc/os-release
cd /etc/apt
if ! grep -rqs security sources.list sources.list.d; then
  mirror=$(grep -rhoE 'https?://[^ ]+/debian' sources.list sources.list.d | head -n 1)
  echo "deb $mirror-security $VERSION_CODENAME-security main" > sources.list.d/security.list
fi
apt-get -qq -o APT::Update::Error-Mode=any -o Acquire::Retries=1 -o Acquire::http::Timeout=20 update
apt-get -s dist-upgrade
"""
UPDATE = re.compile(r"^Inst (?P<package>\S+) \[(?P<version>\S+)\] \((?P<fixed>\S+) (?P<origins>.*)\)", re.MULTILINE)


@dataclass(frozen=True)
class Vulnerability:
    """A package that has one, known as *identifier*, and the versions that mend it."""

    package: str
    version: str
    identifier: str
    fixed: str

    def __str__(self) -> str:
        """Say what to do about it."""
        mend = f"mended in {self.fixed}" if self.fixed else "not mended yet"
        return f"{self.package} {self.version}: {self.identifier}, {mend}"


@dataclass(frozen=True)
class Look:
    """What one source knows of an image; *not_checked* says what it could not be asked, and why."""

    source: str
    found: Sequence[Vulnerability] = ()
    not_checked: str = ""

    def lines(self) -> Iterator[str]:
        """Yield what a person has to see of it."""
        yield from (f"VULNERABLE ({self.source}): {vulnerability}" for vulnerability in self.found)
        if self.not_checked:
            yield f"NOT CHECKED ({self.source}): {self.not_checked}"
        elif not self.found:
            yield f"{self.source}: nothing known"


def look(engine: Engine, image: str, bom: Bom) -> list[Look]:
    """Ask all sources for *image*, which holds what *bom* lists."""
    return [advisories(bom), security_updates(engine, image)]


def advisories(bom: Bom) -> Look:
    """Ask PyPI, or the service that pip-audit's own settings name, for advisories on the Python packages of *bom*."""
    source = "advisories on Python packages"
    purls = [component.purl for component in bom.components if component.purl and component.purl.type == "pypi"]
    try:
        answers = [answer for pins in _rounds(purls) for answer in _audit(pins)]
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        return Look(source, not_checked=str(exc))
    found = [
        Vulnerability(answer["name"], answer["version"], known["id"], ", ".join(known["fix_versions"]))
        for answer in answers
        for known in answer.get("vulns", ())
    ]
    return Look(
        source, found, _unknown([answer["name"] for answer in answers if "skip_reason" in answer], len(answers))
    )


def security_updates(engine: Engine, image: str) -> Look:
    """Ask Debian for security updates of the packages of *image*, in a container that is thrown away."""
    source = "Debian security updates"
    name = f"updates-{os.getpid()}"
    command = ["run", "--name", name, "--user", "0:0", "--entrypoint", "sh", image, "-ec", DEBIAN_LOOK]
    try:
        updates = engine.run(*command, timeout_seconds=LOOK_SECONDS)
    except (EngineError, subprocess.TimeoutExpired) as exc:
        return Look(source, not_checked=" ".join(str(exc).split()))
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            engine.run("rm", "--force", name, check=False)
    found = [
        Vulnerability(update["package"], update["version"], "a security update is pending", update["fixed"])
        for update in UPDATE.finditer(updates)
        if "security" in update["origins"].lower()
    ]
    return Look(source, found)


def _rounds(purls: Iterable[PackageURL]) -> Iterator[list[str]]:
    """Yield pins of *purls*, one a package at a time: a function may have another version than the base below it."""
    pins: dict[str, list[str]] = {}
    for purl in purls:
        pins.setdefault(purl.name, []).append(f"{purl.name}=={purl.version}")
    for column in zip_longest(*pins.values()):
        yield [pin for pin in column if pin]


def _audit(pins: Iterable[str]) -> list[dict[str, Any]]:
    """Run pip-audit on *pins* and return its answer for each; raise `ValueError` where it has none."""
    with tempfile.TemporaryDirectory(prefix="audit-") as folder:
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text("".join(f"{pin}\n" for pin in sorted(pins)))
        flags = ["--format", "json", "--progress-spinner", "off", "--timeout", str(SOCKET_SECONDS)]
        command = [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--no-deps", "--disable-pip"]
        done = subprocess.run([*command, *flags], capture_output=True, text=True, timeout=LOOK_SECONDS, check=False)
    if not done.stdout:
        raise ValueError(done.stderr.strip().rpartition("\n")[2])
    answers: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    return answers


def _unknown(names: Sequence[str], asked: int) -> str:
    """Say which packages the service does not know: it answers so too where it keeps no advisories at all."""
    if not names:
        return ""
    shown = ", ".join(sorted(names)[:SHOWN_NAMES]) + (", …" if len(names) > SHOWN_NAMES else "")
    return f"the index tells nothing of {len(names)} of {asked} packages: {shown}"

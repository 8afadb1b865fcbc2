"""
Write an image's bill of materials (CycloneDX 1.6) from what is in its root file system, without running it.

The Python packages of its environments come from cyclonedx-py, what their wheels say they have compiled in (PEP 770)
stands below them, and Debian's packages come from dpkg's own list.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any, cast

from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

from .contents import name_of, root_file_system
from .engine import Engine, EngineError

SPECIFICATION = SchemaVersion.V1_6
LISTING_SECONDS = 60.0
DPKG = "var/lib/dpkg/status"
RELEASE = "usr/lib/os-release"
WATCHDOG = "usr/bin/fwatchdog"
# What is in usr/lib/python3/dist-packages stands in dpkg's list, with the versions of its security updates.
PACKAGES = r"(.*/site-packages|usr/local/lib/python3[\d.]*/dist-packages)"
METADATA = re.compile(rf"{PACKAGES}/[^/]+\.dist-info/.*|{DPKG}|{RELEASE}|{WATCHDOG}")


def bill_of_materials(engine: Engine, image: str) -> Bom:
    """
    Return the bill of materials of *image*.

    Raises:
        EngineError: The image cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="metadata-") as folder:
        root = Path(folder)
        with root_file_system(engine, image) as archive:
            members = [member for member in archive if member.isfile() and METADATA.fullmatch(name_of(member))]
            # Before Python 3.11.4, which Debian 12 has not, there is no such filter: the image is our own.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(root, members)  # noqa: S202 - as above
        bom = _python_packages(root)
        known = engine.inspect(image)
        bom.components |= {*_debian_packages(root), *_watchdog(root), *_interpreter(known["Config"]["Env"])}
    return _about(bom, image, known["Id"])


def write(bom: Bom, target: Path) -> None:
    """
    Write *bom* as JSON to *target*.

    Raises:
        ValueError: It does not keep to the schema.
    """
    text = make_outputter(bom, OutputFormat.JSON, SPECIFICATION).output_as_string(indent=2)
    if error := JsonStrictValidator(SPECIFICATION).validate_str(text):
        raise ValueError(f"{target} would be no CycloneDX {SPECIFICATION.to_version()}: {error}")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def _about(bom: Bom, image: str, identifier: str) -> Bom:
    """Say that *bom* is that of *image*, on which all depends that is in it."""
    sha256 = identifier.removeprefix("sha256:")
    hashes = [HashType(alg=HashAlgorithm.SHA_256, content=sha256)]
    subject = Component(type=ComponentType.CONTAINER, name=image, version=sha256, hashes=hashes, bom_ref=image)
    bom.metadata.component = subject
    bom.register_dependency(subject, bom.components)
    return bom


def _python_packages(root: Path) -> Bom:
    """Have cyclonedx-py list what is installed in the environments under *root*."""
    folders = sorted({path.parent for path in root.rglob("*.dist-info")})
    # It asks an interpreter for its path, and that of the image may be for another machine than this one.
    interpreter = root / "python"
    interpreter.write_text(f"#!/bin/sh\necho '{json.dumps([str(folder) for folder in folders])}'\n")
    interpreter.chmod(0o755)
    # What comes of it is checked as a whole in the end.
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--no-validate", str(interpreter)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LISTING_SECONDS, check=False)
    if done.returncode:
        raise EngineError(f"cyclonedx-py ended with {done.returncode}: {done.stderr}")
    # A decorator adds the method, which type checkers do not see.
    bom: Bom = cast(Any, Bom).from_json(json.loads(done.stdout))
    for folder in root.rglob("*.dist-info/sboms"):
        _compiled_in(bom, folder)
    return bom


def _compiled_in(bom: Bom, folder: Path) -> None:
    """Put the parts that the bills of materials in *folder* name below the package that they were compiled into."""
    metadata = Distribution.at(folder.parent).metadata
    reference = f"{metadata['Name']}=={metadata['Version']}"
    package = next(component for component in bom.components if component.bom_ref.value == reference)
    parts = [part for path in folder.glob("*.json") for part in json.loads(path.read_bytes()).get("components", ())]
    package.components |= {_part(part, reference) for part in parts if part["name"].lower() != metadata["Name"].lower()}


def _part(part: Mapping[str, str], within: str) -> Component:
    name, version = part["name"], part.get("version")
    purl = PackageURL.from_string(part["purl"]) if "purl" in part else None
    kind = ComponentType(part["type"])
    return Component(type=kind, name=name, version=version, purl=purl, bom_ref=f"{within}/{name}@{version}")


def _interpreter(environ: Iterable[str]) -> Iterator[Component]:
    """Yield the Python of official images, which is in no package; they tell its version in their environment."""
    for version in (entry.removeprefix("PYTHON_VERSION=") for entry in environ if entry.startswith("PYTHON_VERSION=")):
        purl = PackageURL("generic", None, "python", version)
        cpe = f"cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*"
        kind = ComponentType.APPLICATION
        yield Component(type=kind, name="python", version=version, purl=purl, cpe=cpe, bom_ref=str(purl))


def _debian_packages(root: Path) -> Iterator[Component]:
    """Yield the packages that dpkg has installed."""
    release = dict(re.findall(r'^(\w+)="?(.*?)"?$', (root / RELEASE).read_text(), re.MULTILINE))
    for fields in _paragraphs((root / DPKG).read_text()):
        if not fields["Status"].endswith(" installed"):
            continue
        qualifiers = {"arch": fields["Architecture"], "distro": f"{release['ID']}-{release['VERSION_ID']}"}
        if source := fields.get("Source"):
            # Advisories are about source packages.
            qualifiers["upstream"] = source.partition(" ")[0]
        purl = PackageURL("deb", release["ID"], fields["Package"], fields["Version"], qualifiers)
        name, summary = fields["Package"], fields["Description"]
        yield Component(name=name, version=fields["Version"], purl=purl, bom_ref=str(purl), description=summary)


def _paragraphs(text: str) -> Iterator[Mapping[str, str]]:
    """Yield the paragraphs of a Debian control file, of each field its first line."""
    for paragraph in re.split(r"\n{2,}", text.strip()):
        yield dict(re.findall(r"^([\w-]+): *(.*)$", paragraph, re.MULTILINE))


def _watchdog(root: Path) -> Iterator[Component]:
    """Yield of-watchdog where the function runs behind it; the program does not tell its version."""
    if (path := root / WATCHDOG).exists():
        content = HashType(alg=HashAlgorithm.SHA_256, content=hashlib.sha256(path.read_bytes()).hexdigest())
        yield Component(type=ComponentType.APPLICATION, name="of-watchdog", hashes=[content], bom_ref="of-watchdog")

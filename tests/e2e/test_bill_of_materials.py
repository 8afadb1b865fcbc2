"""The bill of materials of an image names all that is installed in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component
from cyclonedx.model.license import DisjunctiveLicense

from deploy.images.bill_of_materials import bill_of_materials, write
from deploy.images.building import Builder
from deploy.images.engine import Engine
from deploy.images.project import ROOT, TEMPLATE
from tests.e2e.building import run_in
from tests.e2e.conftest import Build, image_name

DISTRIBUTIONS = """\
import importlib.metadata, sys, sysconfig
places = [path for path in sys.path if path.startswith("/opt/")]
# Official images have packages beside their Python; those of Debian's Python are Debian packages.
own = sysconfig.get_path("purelib", "posix_prefix", {"base": sys.base_prefix})
places += [own] if own.endswith("/site-packages") else []
for found in importlib.metadata.distributions(path=places):
    print(found.name, found.version)
"""


@pytest.fixture(scope="module")
def image(build: Build) -> str:
    """Return the image of the sample, which has packages of its own."""
    return build(ROOT / "functions" / "image-processor", "image-processor")


@pytest.fixture(scope="module")
def bom(engine: Engine, image: str) -> Bom:
    """Return the bill of materials of the sample."""
    return bill_of_materials(engine, image)


def versions(bom: Bom, *kinds: str) -> set[tuple[str, str | None]]:
    """Return name and version of the components whose package URL is of one of *kinds*, ``""`` for those without."""
    components = [component for component in bom.components if (component.purl.type if component.purl else "") in kinds]
    return {(component.name, component.version) for component in components}


def listed(text: str) -> Iterator[tuple[str, str]]:
    """Yield name and version of each line."""
    for line in text.splitlines():
        name, version = line.split()
        yield name, version


def test_it_lists_what_python_finds_installed(builder: Builder, image: str, bom: Bom) -> None:
    found = set(listed(run_in(builder, image, "python", "-c", DISTRIBUTIONS)))
    assert {"pillow", "fastapi", "faasbase"} <= {name for name, _ in found}
    assert versions(bom, "pypi", "") == found


def test_it_lists_what_debian_has_installed(builder: Builder, image: str, bom: Bom) -> None:
    found = set(listed(run_in(builder, image, "dpkg-query", "-W", "-f", "${Package} ${Version}\n")))
    assert "libc6" in {name for name, _ in found}
    assert versions(bom, "deb") == found


def test_the_base_is_no_package_of_any_index(builder: Builder, image: str, bom: Bom) -> None:
    """It has its version, and no address at which a stranger's package could be meant."""
    version = run_in(builder, image, "python", "-c", "import faasbase; print(faasbase.__version__)").strip()
    assert versions(bom, "") == {("faasbase", version)}


def test_it_tells_what_wheels_have_compiled_in(bom: Bom) -> None:
    """No file of theirs is a package of Python's or Debian's, and they too have vulnerabilities."""
    (core,) = (component for component in bom.components if component.name == "pydantic_core")
    assert {part.purl.type for part in core.components if part.purl} == {"cargo"}
    (pillow,) = (component for component in bom.components if component.name == "pillow")
    assert {part.name for part in pillow.components} >= {"libtiff", "libwebp"}


def test_it_says_which_image_it_is_about(engine: Engine, image: str, bom: Bom, tmp_path: Path) -> None:
    write(bom, target := tmp_path / "made" / "image.cdx.json")
    written = json.loads(target.read_text())
    assert (written["bomFormat"], written["specVersion"]) == ("CycloneDX", "1.6")
    subject = written["metadata"]["component"]
    assert (subject["type"], subject["name"]) == ("container", image)
    assert subject["version"] in engine.inspect(image)["Id"]


def test_what_breaks_the_schema_is_not_written(tmp_path: Path) -> None:
    bom = Bom(components=[Component(name="odd", licenses=[DisjunctiveLicense(id="no licence of SPDX's")])])
    with pytest.raises(ValueError, match=r"no CycloneDX 1\.6"):
        write(bom, tmp_path / "odd.cdx.json")
    assert list(tmp_path.iterdir()) == []


def test_it_names_the_python_of_official_images(engine: Engine, build: Build, tmp_path: Path) -> None:
    """That one is in no package; the images tell its version in their environment."""
    hello, image = build(TEMPLATE / "function", "hello"), image_name("official")
    (tmp_path / "Dockerfile").write_text(f"FROM {hello}\nENV PYTHON_VERSION=3.13.99\n")
    try:
        engine.build(tmp_path, image, [])
        assert versions(bill_of_materials(engine, image), "generic") == {("python", "3.13.99")}
    finally:
        engine.remove_image(image)


@pytest.mark.parametrize("kind", ["site", "dist"])
def test_it_lists_what_is_installed_beside_the_images_python(
    engine: Engine, build: Build, tmp_path: Path, kind: str
) -> None:
    """Official images have pip there, and others what somebody put there without dpkg."""
    hello, image = build(TEMPLATE / "function", "hello"), image_name(f"beside-{kind}")
    place = f"/usr/local/lib/python3.13/{kind}-packages/paintbox-2.1.dist-info/"
    (tmp_path / "METADATA").write_text("Metadata-Version: 2.1\nName: paintbox\nVersion: 2.1\n")
    (tmp_path / "Dockerfile").write_text(f"FROM {hello}\nCOPY METADATA {place}\n")
    try:
        engine.build(tmp_path, image, [])
        assert ("paintbox", "2.1") in versions(bill_of_materials(engine, image), "pypi")
    finally:
        engine.remove_image(image)


@pytest.mark.tool("of-watchdog")
def test_it_names_the_watchdog(engine: Engine, build: Build) -> None:
    bom = bill_of_materials(engine, build(TEMPLATE / "function", "watched", shape="watchdog"))
    (watchdog,) = (component for component in bom.components if component.name == "of-watchdog")
    assert len(watchdog.hashes) == 1

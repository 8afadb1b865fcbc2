"""Known vulnerabilities are found by what registries offer, and what was not asked is said."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component
from packageurl import PackageURL

from deploy.images.engine import Engine
from deploy.images.project import TEMPLATE
from deploy.images.vulnerabilities import Look, Vulnerability, advisories, security_updates
from tests.e2e.conftest import Build, image_name

ADVISORY = {
    "id": "TEST-2026-1",
    "summary": "reads beyond the end",
    "affected": [
        {
            "package": {"name": "paintbox", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.1"}]}],
        }
    ],
}
# A repository of Debian packages in a folder, which has a newer version of one that every image has.
PACKAGES = """\
Package: base-files
Version: 9999
Architecture: all
Filename: ./base-files.deb
Size: 1
SHA256: 0
"""
RELEASE = """\
Origin: Debian
Label: {label}
Suite: stable
SHA256:
 {digest} {size} Packages
"""
SOURCES = "deb [trusted=yes] {address} ./\n"
DOCKERFILE = """\
FROM {image}
USER root
RUN rm -rf /etc/apt/sources.list.d
COPY . /srv/security
RUN mv /srv/security/sources.list /etc/apt/sources.list
"""


class Advisories(BaseHTTPRequestHandler):
    """OSV's service as far as pip-audit asks it: it knows of one vulnerable package, below version 2.1."""

    def do_POST(self) -> None:
        """Answer a query for a package and a version."""
        query = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = query["package"]["name"] == "paintbox" and query["version"] < "2.1"
        answer = json.dumps({"vulns": [ADVISORY]} if known else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *arguments: object) -> None:
        """Keep quiet."""


@contextmanager
def service() -> Iterator[str]:
    """Serve advisories for the time of the block and yield the address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Advisories)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def image_with_updates(engine: Engine, image: str, folder: Path, *, label: str, address: str) -> Iterator[str]:
    """Make an image of *image* that looks for updates in a repository called *label* at *address* and nowhere else."""
    digest = hashlib.sha256(PACKAGES.encode()).hexdigest()
    (folder / "Packages").write_text(PACKAGES)
    (folder / "Release").write_text(RELEASE.format(label=label, digest=digest, size=len(PACKAGES)))
    (folder / "sources.list").write_text(SOURCES.format(address=address))
    (folder / "Dockerfile").write_text(DOCKERFILE.format(image=image))
    made = image_name("updates")
    try:
        engine.build(folder, made, [])
        yield made
    finally:
        engine.remove_image(made)


def packages(*pins: str) -> Bom:
    """Return a bill of materials of Python packages, each given as ``name==version``."""
    pairs = [pin.split("==") for pin in pins]
    return Bom(
        components=[
            Component(name=name, version=version, bom_ref=pin, purl=PackageURL("pypi", None, name, version))
            for pin, (name, version) in zip(pins, pairs, strict=True)
        ]
    )


def ask(monkeypatch: pytest.MonkeyPatch, address: str, *pins: str) -> Look:
    """Ask the service at *address* for packages, by the settings of pip-audit."""
    monkeypatch.setenv("PIP_AUDIT_VULNERABILITY_SERVICE", "osv")
    monkeypatch.setenv("PIP_AUDIT_OSV_URL", address)
    return advisories(packages(*pins))


def test_a_vulnerable_package_is_found_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """In each version that is there: the function's own, and the base's that it hides."""
    with service() as address:
        look = ask(monkeypatch, address, "paintbox==2.0", "paintbox==2.1", "palette==1.0")
    assert look.found == [Vulnerability("paintbox", "2.0", "TEST-2026-1", "2.1")]
    assert list(look.lines()) == [f"VULNERABLE ({look.source}): paintbox 2.0: TEST-2026-1, mended in 2.1"]


def test_where_nothing_is_known_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with service() as address:
        look = ask(monkeypatch, address, "palette==1.0")
    assert list(look.lines()) == [f"{look.source}: nothing known"]


def test_without_the_service_nothing_is_called_safe(monkeypatch: pytest.MonkeyPatch) -> None:
    with service() as address:
        pass
    look = ask(monkeypatch, address, "palette==1.0")
    (line,) = look.lines()
    assert line.startswith(f"NOT CHECKED ({look.source}): ")
    assert "Connection refused" in line


def test_a_package_that_the_index_does_not_know_is_not_called_safe() -> None:
    """Indexes that keep no advisories answer so for every package; this one stands in none."""
    look = advisories(packages("faasbase==0.1.0"))
    assert not look.found
    (line,) = look.lines()
    assert line.startswith(f"NOT CHECKED ({look.source}): ")


def test_a_pending_security_update_is_found(engine: Engine, build: Build, tmp_path: Path) -> None:
    image = build(TEMPLATE / "function", "hello")
    given = {"label": "Debian-Security", "address": "file:/srv/security"}
    with image_with_updates(engine, image, tmp_path, **given) as outdated:
        look = security_updates(engine, outdated)
    (found,) = look.found
    assert (found.package, found.fixed, look.not_checked) == ("base-files", "9999", "")
    assert next(look.lines()).startswith(f"VULNERABLE ({look.source}): base-files ")


def test_other_updates_are_no_vulnerabilities(engine: Engine, build: Build, tmp_path: Path) -> None:
    image = build(TEMPLATE / "function", "hello")
    given = {"label": "Debian", "address": "file:/srv/security"}
    with image_with_updates(engine, image, tmp_path, **given) as outdated:
        look = security_updates(engine, outdated)
    assert list(look.lines()) == [f"{look.source}: nothing known"]


def test_a_repository_that_cannot_be_reached_is_told(engine: Engine, build: Build, tmp_path: Path) -> None:
    image = build(TEMPLATE / "function", "hello")
    given = {"label": "Debian-Security", "address": "http://127.0.0.1:9/security"}
    with image_with_updates(engine, image, tmp_path, **given) as cut_off:
        look = security_updates(engine, cut_off)
    assert look.found == ()
    assert "127.0.0.1" in look.not_checked

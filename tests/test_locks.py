"""The lock files agree with each other and with what asks for them, and are renewed and compared as one."""

from __future__ import annotations

import re
import tomllib
import zipfile
from collections.abc import Iterable
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from deploy.locks import BASE_LOCK, ROOT, TESTING_LOCK, locks, main, read_pins
from tests.staging import BASE

LOCKS = [lock.path for lock in locks(ROOT)]
PINNED = re.compile(r"[a-z0-9.-]+==\S+ +(; [^-]+?)?( *--hash=sha256:[0-9a-f]{64})+")
PROJECT = """\
[project]
name = "faasbase"
version = "1.0"
requires-python = ">=3.11"
dependencies = ["core>=1"]

[project.optional-dependencies]
one = ["first>=1,<2"]
two = ["second"]
testing = ["faasbase[one]", "checker"]
"""
GROUPS = """\
[dependency-groups]
bench = ["faasbase[testing]"]
dev = ["faasbase[testing]", "tool"]
local = ["core", "gateway"]

[tool.uv.sources]
faasbase = { path = "template/python-fastapi/base" }
"""


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of wheels that is all that the resolver knows of."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("core", "first", "second", "checker", "tool", "gateway"):
        publish(folder, name, "1.0")
    settings = tmp_path / "uv.toml"
    settings.write_text(f'no-index = true\nfind-links = ["{folder}"]\n')
    monkeypatch.setenv("UV_CONFIG_FILE", str(settings))
    return folder


@pytest.fixture
def project(tmp_path: Path, index: Path) -> Path:
    """Return a project like this one, on packages of the index, with locks as they are now."""
    root = tmp_path / "project"
    for path in LOCKS:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / BASE_LOCK.parent / "pyproject.toml").write_text(PROJECT)
    (root / "pyproject.toml").write_text(GROUPS)
    assert main([], root) == 0
    return root


def publish(index: Path, name: str, version: str, needs: Iterable[str] = ()) -> None:
    """Put an empty package on the index."""
    folder = f"{name}-{version}.dist-info"
    metadata = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata += [f"Requires-Dist: {requirement}" for requirement in needs]
    with zipfile.ZipFile(index / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{folder}/METADATA", "\n".join(metadata) + "\n")
        wheel.writestr(f"{folder}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{folder}/RECORD", "")


def pins(root: Path, path: Path) -> dict[str, str]:
    return read_pins((root / path).read_text())


def contents(root: Path) -> dict[Path, str]:
    return {path: (root / path).read_text() for path in LOCKS}


def test_every_package_has_one_version_in_all_locks() -> None:
    versions: dict[str, set[str]] = {}
    for path in LOCKS:
        for name, version in pins(ROOT, path).items():
            versions.setdefault(name, set()).add(version)
    assert len(versions) > 50
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_every_line_of_every_lock_has_hashes() -> None:
    for text in contents(ROOT).values():
        lines = [line for line in text.replace("\\\n", "").splitlines() if line and not line.startswith("#")]
        assert [line for line in lines if not PINNED.fullmatch(line)] == []


def test_images_install_every_extra_but_the_testing_one() -> None:
    """What a function asks of its base is there, and what its tests need is not."""
    project = tomllib.loads((BASE / "pyproject.toml").read_text())["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    testing = names(extras.pop("testing"))
    shipped = {name for lines in [project["dependencies"], *extras.values()] for name in names(lines)}
    assert shipped - {"faasbase"} <= set(pins(ROOT, BASE_LOCK))
    assert testing - {"faasbase"} <= set(pins(ROOT, TESTING_LOCK))
    assert "pytest" not in pins(ROOT, BASE_LOCK)


@pytest.mark.parametrize("lock", LOCKS, ids=str)
def test_packages_of_opentelemetry_are_one_set(lock: Path) -> None:
    """The stable packages have one version and the others have one, and each asks for those that stand beside it."""
    locked = {name: version for name, version in pins(ROOT, lock).items() if name.startswith("opentelemetry-")}
    stable = {version for version in locked.values() if "b" not in version}
    assert len(stable) <= 1
    assert len(set(locked.values()) - stable) <= 1
    for name in locked:
        for wanted in map(Requirement, requires(name) or ()):
            if wanted.name in locked and wanted.marker is None:
                assert wanted.specifier.contains(locked[wanted.name], prereleases=True), f"{name}: {wanted}"


def test_every_extra_is_locked_without_being_named(project: Path) -> None:
    assert set(pins(project, BASE_LOCK)) == {"core", "first", "second"}
    assert set(pins(project, TESTING_LOCK)) == {"checker", "core", "first"}
    assert set(pins(project, Path("tests", "requirements.txt"))) == {"checker", "core", "first", "tool"}


def test_later_locks_keep_to_the_versions_of_the_base(project: Path, index: Path) -> None:
    """One that asks for another version fails, and no lock is changed."""
    before = contents(project)
    publish(index, "core", "2.0")
    publish(index, "gateway", "2.0", needs=["core<2"])
    assert main([], project) == 0
    for path in LOCKS:
        assert pins(project, path)["core"] == "2.0"
    assert pins(project, LOCKS[-1])["gateway"] == "1.0"
    assert contents(project) != before


def test_locks_that_cannot_agree_are_left_as_they_were(
    project: Path, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(index, "core", "2.0")
    (index / "gateway-1.0-py3-none-any.whl").unlink()
    publish(index, "gateway", "1.1", needs=["core<2"])
    before = contents(project)
    assert main([], project) == 1
    assert "gateway" in capsys.readouterr().err
    assert contents(project) == before


def test_newer_versions_and_what_keeps_them_out_are_told(
    project: Path, index: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bound of ours, one of another package, and none; the files stay as they are."""
    publish(index, "first", "2.0")
    publish(index, "checker", "1.5", needs=["tool<2"])
    publish(index, "tool", "2.0")
    publish(index, "core", "1.5")
    before = contents(project)
    assert main(["outdated"], project) == 0
    told = capsys.readouterr().out
    assert "make lock: core 1.0 → 1.5\n" in told
    assert "make lock: checker 1.0 → 1.5\n" in told
    assert re.search(r"kept out: first 2\.0, 1\.0 is pinned\n +Because faasbase\S* depends on first>=1,<2", told)
    assert "kept out: core" not in told
    assert contents(project) == before


def test_lock_that_stays_the_same_is_not_written(project: Path) -> None:
    """Make would take it for changed and install everything anew."""
    before = {path: (project / path).stat().st_mtime_ns for path in LOCKS}
    assert main([], project) == 0
    assert {path: (project / path).stat().st_mtime_ns for path in LOCKS} == before


def test_newest_versions_are_told_as_such(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["outdated"], project) == 0
    assert capsys.readouterr().out == "every package is pinned at its newest version\n"


def names(requirements: Iterable[str]) -> set[str]:
    """Return the names of packages as the locks spell them."""
    return {Requirement(line).name.lower().replace("_", "-") for line in requirements}

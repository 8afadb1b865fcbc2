"""``local outdated`` tells what pulling the template again would bring."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pulled_template import CHANGELOG, PULLED, Repository, pulled, refused, told, write_meta
from tests.staging import TEMPLATE

LOCK = Path("base", "requirements.txt")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture
def project(tmp_path: Path, repository: Repository) -> Path:
    return pulled(tmp_path, repository)


def test_template_that_is_the_newest_has_no_changes(project: Path, repository: Repository) -> None:
    commit = repository.git("rev-parse", "HEAD")[:12]
    output = told(project)
    assert f"{commit} → {commit}\n" in output
    assert "nothing has changed" in output
    assert "faas-cli template pull" not in output


def test_every_kind_of_change_is_told(project: Path, repository: Repository) -> None:
    repository.replace(PULLED / "base" / "faasbase" / "__init__.py", '__version__ = "', '__version__ = "9.')
    lock = (repository.folder / PULLED / LOCK).read_text()
    (repository.folder / PULLED / LOCK).write_text(
        lock.replace("\nfastapi==", "\nfastapi==9.").replace("\nh11==", "\nh12==")
    )
    (repository.folder / PULLED / "local" / "gateway.py").unlink()
    (repository.folder / PULLED / "Dockerfile").write_text("FROM scratch\n")
    (repository.folder / PULLED / "function" / "handler.py").write_text("app = None\n")
    commit = repository.commit()
    output = told(project)
    assert f"→ {commit[:12]}\n" in output
    assert " → 9." in output.split("faasbase ")[1].split("\n")[0]
    for line in (
        "h11 0.",
        "h12 0.",
        "Dockerfile\n",
        "base/ (2)\n",
        "local/ (1)\n",
        "has another function/handler.py\n",
    ):
        assert line in output
    assert "fastapi 0." in output
    assert "nothing has changed" not in output
    assert "faas-cli template pull ../repository\n" in output


def test_what_faas_cli_and_python_left_in_the_folder_is_no_change(project: Path) -> None:
    for name in ("base/faasbase/__pycache__/x.pyc", "function/.pytest_cache/x", "base/faasbase.egg-info/PKG-INFO"):
        path = project / PULLED / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("left behind")
    assert "nothing has changed" in told(project)


def test_only_new_entries_of_the_changelog_are_shown(project: Path, repository: Repository) -> None:
    """The commit that was pulled is fetched as well, and its changelog is known."""
    released = CHANGELOG.replace("## Unreleased\n", "## Unreleased\n\n## [9.0.0] - 2027-01-01\n\n- The second thing.\n")
    (repository.folder / "CHANGELOG.md").write_text(f"{released}\n[9.0.0]: https://example.com\n")
    repository.commit()
    shown = told(project).split("\n\n")[1]
    assert shown.splitlines() == ["## [9.0.0] - 2027-01-01", "- The second thing."]


def test_changelog_above_the_own_version_is_shown_where_the_pulled_commit_is_gone(
    project: Path, repository: Repository
) -> None:
    own = (TEMPLATE / "base" / "faasbase" / "__init__.py").read_text().split('__version__ = "')[1].split('"')[0]
    write_meta(project, repository="../repository", ref_name=own, sha="0" * 40)
    sections = f"## Unreleased\n\n- New.\n\n## [{own}] - 2026-01-01\n\n- Old.\n"
    (repository.folder / "CHANGELOG.md").write_text(sections)
    repository.commit()
    output = told(project)
    assert "- New." in output
    assert "- Old." not in output


def test_reference_may_be_a_tag_a_branch_or_a_commit(project: Path, repository: Repository) -> None:
    (repository.folder / PULLED / "index.py").write_text("released\n")
    released = repository.commit()
    repository.git("tag", "9.0.0")
    (repository.folder / PULLED / "template.yml").write_text("later\n")
    repository.commit()
    repository.git("branch", "next")
    for ref, files in {"9.0.0": 1, f"sha-{released[:10]}": 1, "next": 2, "": 2}.items():
        output = told(project, *(["--to", ref] if ref else []))
        assert output.count("index.py") == 1
        assert output.count("template.yml") == files - 1
    assert "branch 8.0.0 not found" in refused(project, "--to", "8.0.0")
    assert "0123456" in refused(project, "--to", "sha-0123456")
    assert "is no branch" in refused(project, "--to=--upload-pack=touch canary")
    assert not list(project.rglob("canary"))


def test_pinned_folder_is_compared_with_the_template_of_its_name(project: Path, repository: Repository) -> None:
    (repository.folder / PULLED / "index.py").write_text("later\n")
    repository.commit()
    (project / PULLED).rename(project / f"{PULLED}@1.0.0")
    assert "index.py" in told(project)
    (project / f"{PULLED}@1.0.0").rename(project / "template" / "another")
    assert refused(project) == "../repository has no template/another at its default branch"


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"repository": 1}', '{"repository": "x", "sha": {"a": 1}}', "\udcff"]
)
def test_meta_file_that_faas_cli_did_not_write_is_refused(project: Path, text: str) -> None:
    (project / PULLED / "meta.json").write_text(text, errors="surrogateescape")
    assert "does not name a repository" in refused(project)


def test_template_that_was_not_pulled_is_refused(project: Path) -> None:
    (project / PULLED / "meta.json").unlink()
    assert "was not pulled by faas-cli template pull" in refused(project)


def test_machine_without_git_is_told(project: Path, tmp_path: Path) -> None:
    assert refused(project, PATH=str(tmp_path)) == "git is not installed"

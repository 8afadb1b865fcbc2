"""A repository that has the template, a project that has pulled it, and ``local outdated`` in that project."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.local_up import make_project
from tests.staging import TEMPLATE

PULLED = Path("template", "python-fastapi")
CHANGELOG = """\
# Changelog

## Unreleased

- The first thing,
  on two lines.
"""


class Repository:
    """A git repository that has the template, as its owner keeps it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(TEMPLATE, folder / PULLED, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
        (folder / "CHANGELOG.md").write_text(CHANGELOG)
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit()

    def git(self, *arguments: str) -> str:
        command = ["git", "-c", "user.name=owner", "-c", "user.email=owner@example.com", *arguments]
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, timeout=30, check=True
        ).stdout.strip()

    def commit(self) -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message=change")
        return self.git("rev-parse", "HEAD")

    def replace(self, name: str | Path, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))


def pulled(folder: Path, repository: Repository) -> Path:
    """Make a project in *folder* that has pulled the template from *repository* beside it, by a relative path."""
    project = make_project(folder, {})
    write_meta(project, repository=f"../{repository.folder.name}", sha=repository.git("rev-parse", "HEAD"))
    return project


def write_meta(project: Path, **fields: object) -> None:
    meta = {"written_at": "2026-11-24T08:46:05Z", **fields}
    (next((project / "template").iterdir()) / "meta.json").write_text(json.dumps(meta))


def outdated(project: Path, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run the command on the standard library alone, as a Python without any package does."""
    folder = next((project / "template").iterdir()).relative_to(project)
    return subprocess.run(
        [sys.executable, "-S", folder / "local", "outdated", *options],
        cwd=project,
        env=os.environ | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def told(project: Path, *options: str) -> str:
    done = outdated(project, *options)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def refused(project: Path, *options: str, **environ: str) -> str:
    """Return the one line of a refusal."""
    done = outdated(project, *options, **environ)
    assert (done.returncode, done.stdout) == (1, "")
    start = "what an update would bring cannot be told: "
    assert done.stderr.startswith(start)
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix(start).strip()

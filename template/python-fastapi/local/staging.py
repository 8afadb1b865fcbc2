"""Stage a function as faas-cli stages it for a build: the template, the handler over it, and what is copied besides."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from stackfile import Function

NOT_IN_AN_IMAGE = ("base", "local")
"""Folders of the template that a function does not import from; the base is on its path instead."""
OUTSIDE_A_HANDLER = ("build", "template")
"""What faas-cli skips in a handler's folder, so that the project's own folder can be one."""
NO_CODE = (
    "__pycache__", "*.pyc", ".*_cache", ".hypothesis", ".venv", ".tox", ".nox", "node_modules",
    ".git", ".hg", ".svn", ".secrets", ".idea", ".vscode", "*.swp", "*~", ".#*",
)  # fmt: skip
"""Caches, environments, version control and what editors leave: none of it runs, or tells of a change."""


class StagingError(Exception):
    """A function cannot be staged."""


def stage(function: Function, template: Path, project: Path, copied_paths: Iterable[str], target: Path) -> None:
    """Write the files of *function* to the new folder *target*."""
    _copy(template, target, NOT_IN_AN_IMAGE)
    handler = target / "function"
    _copy(function.handler, handler, OUTSIDE_A_HANDLER)
    for name in copied_paths:
        source = (project / name).resolve()
        if not source.is_relative_to(project.resolve()):
            raise StagingError(f"configuration.copy: {name} is outside of the project")
        if source.is_dir():
            _copy(source, handler / name, ())
        else:
            (handler / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, handler / name)


def _copy(source: Path, target: Path, left_out: Sequence[str]) -> None:
    everywhere = shutil.ignore_patterns(*NO_CODE)

    def ignored(folder: str, names: list[str]) -> set[str]:
        # Only the top level has these: a function may have a package of its own called base or build.
        top = set(left_out) if Path(folder) == source else set()
        return everywhere(folder, names) | top

    shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True, ignore_dangling_symlinks=True)

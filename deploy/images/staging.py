"""Stage a function for a build as faas-cli does: the template, the handler over its ``function/``, extra copies."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

OUTSIDE_A_HANDLER = ("build", "template")


def stage(template: Path, handler: Path, target: Path, extra: Iterable[Path] = ()) -> Path:
    """
    Write the build context of *handler* to *target*, which is wiped first, and return it.

    Like faas-cli, it leaves out nothing else: what must not enter an image is the matter of ``.dockerignore``.
    """
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(template, target)
    function = target / "function"
    for entry in handler.iterdir():
        if entry.name not in OUTSIDE_A_HANDLER:
            _copy(entry, function / entry.name)
    for path in extra:
        _copy(path, function / path.name)
    # faas-cli makes this folder for its owner alone, and the image has to cope.
    function.chmod(0o700)
    return target


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copy2(source, target)

"""Stage a function into a folder as faas-cli does before a build: the template, then the handler's folder over it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = ROOT / "template" / "python-fastapi"
BASE = TEMPLATE / "base"
FUNCTIONS = ROOT / "functions"
# What belongs to the image's base and to the developer's machine never enters a function.
LEFT_OUT = shutil.ignore_patterns("base", "local", "__pycache__", "*.pyc")


def stage(source: str | Path | Mapping[str, str], folder: Path) -> Path:
    """
    Stage *source* under *folder* and return the folder that holds ``index.py``.

    *source* is the text of a ``handler.py``, several files by name, or a handler folder.
    """
    staged = folder / "staged"
    shutil.copytree(TEMPLATE, staged, ignore=LEFT_OUT)
    handler = staged / "function"
    if isinstance(source, Path):
        shutil.copytree(source, handler, dirs_exist_ok=True, ignore=LEFT_OUT)
        return staged
    files = {"handler.py": source} if isinstance(source, str) else source
    for name, text in files.items():
        target = handler / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return staged

"""What users import from the base is there, sorted and lazy."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import faasbase
from tests.staging import BASE

SOURCE = Path(faasbase.__file__)


def type_checking_names() -> set[str]:
    """Return the names that editors and type checkers see."""
    tree = ast.parse(SOURCE.read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [n for block in blocks for n in block.body if isinstance(n, ast.ImportFrom)]
    return {alias.name for statement in imports for alias in statement.names}


def test_all_is_sorted_and_whole() -> None:
    """``__all__`` lists exactly what the package re-exports."""
    assert list(faasbase.__all__) == sorted(faasbase.__all__)
    assert set(faasbase.__all__) == type_checking_names()


@pytest.mark.parametrize("name", faasbase.__all__)
def test_name_can_be_imported(name: str) -> None:
    """The lazy import finds each of them."""
    assert getattr(faasbase, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    """A typo is told as for any module."""
    with pytest.raises(AttributeError, match="no_such_name"):
        faasbase.no_such_name  # noqa: B018


def test_import_alone_loads_nothing_heavy() -> None:
    """``import faasbase`` costs a function nothing that it does not use."""
    program = "import faasbase, sys; print(*sorted(m for m in sys.modules if '.' not in m))"
    run = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(BASE)}, capture_output=True, text=True, timeout=20
    )
    assert not {"fastapi", "starlette", "pydantic", "uvicorn", "prometheus_client"} & set(run.stdout.split())


@pytest.mark.parametrize("path", sorted(SOURCE.parent.rglob("*.py")), ids=lambda p: str(p.relative_to(BASE)))
def test_module_can_be_imported_first(path: Path) -> None:
    """No module needs another to be imported before it."""
    module = ".".join(path.relative_to(BASE).with_suffix("").parts).removesuffix(".__init__")
    assert importlib.import_module(module)
    assert importlib.import_module(module).__doc__

"""Stack files are read as faas-cli reads them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from tests.local_up import local_module

STACK = """\
version: 1.0
provider:
  name: openfaas
functions:
  fn:
    lang: python-fastapi
    handler: ./fn
    image: {image}
"""
EXPRESSIONS = [
    "plain",
    "${TAG}",
    "${TAG:-latest}",
    "${UNSET}",
    "${UNSET:-latest}",
    "${EMPTY:-latest}",
    "${UNSET:=latest}",
    "${UNSET=latest}",
    "${UNSET:-a${TAG}c}",
    "${UNSET:-${EMPTY:-deep}}er",
    "$TAG stays",
    "$$ is one",
    "$${TAG} is not replaced",
    "registry:5000/x:${TAG}-${TAG}",
]
ENVIRON = {"TAG": "1.2", "EMPTY": "", "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp"}


@pytest.fixture
def stackfile(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return local_module("stackfile", monkeypatch)


def write(folder: Path, text: str) -> Path:
    (folder / "fn").mkdir(exist_ok=True)
    path = folder / "stack.yml"
    path.write_text(text)
    return path


def image_of(stackfile: ModuleType, folder: Path, expression: str) -> str:
    path = write(folder, STACK.format(image=f'"{expression}"'))
    stack: Any = stackfile.read_stack(path, folder, ENVIRON)
    return str(stack.functions["fn"].image)


@pytest.mark.tool("faas-cli")
@pytest.mark.parametrize("expression", [text for text in EXPRESSIONS if text != "${UNSET}"])
def test_variables_are_replaced_as_faas_cli_replaces_them(
    stackfile: ModuleType, tmp_path: Path, expression: str
) -> None:
    ours = image_of(stackfile, tmp_path, expression)
    generated = subprocess.run(
        ["faas-cli", "generate", "-f", "stack.yml"],
        cwd=tmp_path,
        env=ENVIRON,
        capture_output=True,
        text=True,
        timeout=20,
        check=True,
    )
    # faas-cli adds a tag where there is none.
    theirs = yaml.safe_load(generated.stdout)["spec"]["image"]
    assert theirs in (ours, f"{ours}:latest")


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("${TAG:-latest}", "1.2"),
        ("${UNSET:-latest}", "latest"),
        ("${UNSET:-${EMPTY:-deep}}er", "deeper"),
        ("$TAG $$ $${TAG}", "$TAG $ ${TAG}"),
    ],
)
def test_default_stands_in_for_what_is_unset_or_empty(
    stackfile: ModuleType, tmp_path: Path, expression: str, value: str
) -> None:
    assert image_of(stackfile, tmp_path, expression) == value


@pytest.mark.parametrize("expression", ["${TAG", "${TAG:?must}", "${}", "${UNSET:-a${TAG}"])
def test_expression_that_is_not_understood_is_named(stackfile: ModuleType, tmp_path: Path, expression: str) -> None:
    with pytest.raises(stackfile.StackFileError, match=r"stack\.yml: .*\$\{"):
        image_of(stackfile, tmp_path, expression)


def test_scalars_stay_the_text_that_they_were(stackfile: ModuleType, tmp_path: Path) -> None:
    text = STACK.format(image="x") + ("    environment: {A: 1.10, B: true, C: 0x10, D: ~, E: '', <<: {F: merged}}\n")
    function: Any = stackfile.read_stack(write(tmp_path, text), tmp_path, {}).functions["fn"]
    assert function.environment == {"A": "1.10", "B": "true", "C": "0x10", "D": "~", "E": "", "F": "merged"}


def test_environment_files_win_in_their_order(stackfile: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("environment: {X: a, Y: a}\n")
    (tmp_path / "b.yml").write_text("environment: {Y: b}\n")
    text = STACK.format(image="x") + (
        "    environment: {X: own, Y: own, Z: own}\n    environment_file: [a.yml, b.yml]\n"
    )
    function: Any = stackfile.read_stack(write(tmp_path, text), tmp_path, {}).functions["fn"]
    assert function.environment == {"X": "a", "Y": "b", "Z": "own"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (STACK.replace("openfaas", "faas").format(image="x"), 'only "openfaas" is valid'),
        (STACK.replace("./fn", "./nope").format(image="x"), "its handler ./nope is no folder"),
        (STACK.replace("  fn:", "  Fn:").format(image="x"), "Fn: a function's name"),
        (STACK.format(image="x") + "    environment: [a]\n", "fn.environment: should be a mapping"),
        (STACK.format(image="x") + "    environment: {a: [b]}\n", "fn.environment: each value"),
        (STACK.format(image="x") + "    secrets: one\n", "fn.secrets: should be a list"),
        ("a: [", r"stack\.yml: "),
        ("- a", "should be a mapping"),
    ],
)
def test_wrong_stack_file_is_refused_with_the_place(
    stackfile: ModuleType, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(stackfile.StackFileError, match=message):
        stackfile.read_stack(write(tmp_path, text), tmp_path, {})

"""Choose which functions of a stack file run here, each with the folder of its template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from events import pushing_secrets
from stackfile import Function, Stack


class SelectionError(Exception):
    """Nothing can run."""


@dataclass(frozen=True)
class Selection:
    """The functions that run, and what the user should know before."""

    functions: Sequence[Function]
    templates: Mapping[str, Path]
    """The template's folder by the function's name."""
    copied_paths: Sequence[str]
    notes: Sequence[str]


def select(stack: Stack, names: Sequence[str], project: Path, own_template: Path) -> Selection:
    """
    Choose *names*, or all functions, whose ``lang`` is this template or a pinned ``@<ref>`` of it.

    Raises:
        SelectionError: a name is not in the stack file, a template is not there, or no function is left.
    """
    if unknown := [name for name in names if name not in stack.functions]:
        there = ", ".join(sorted(stack.functions)) or "none"
        raise SelectionError(f"not in the stack file: {', '.join(unknown)} (there: {there})")
    wanted = [stack.functions[name] for name in names or stack.functions]
    language = own_template.name.partition("@")[0]
    ours = [function for function in wanted if function.lang.partition("@")[0] == language]
    notes = [
        f"{function.name}: left out, its lang {function.lang} is not {language}"
        for function in wanted
        if function not in ours
    ]
    if not ours:
        raise SelectionError("\n".join([*notes, f"no function with lang {language} to run"]))
    templates = {function.name: _template(function, project, own_template) for function in ours}
    missing = [note for function in ours for note in _missing_secrets(function, project)]
    return Selection(ours, templates, stack.copied_paths, [*notes, *missing])


def _template(function: Function, project: Path, own_template: Path) -> Path:
    folder = project / "template" / function.lang
    if (folder / "base").is_dir():
        return folder
    if own_template.name == function.lang:
        return own_template
    raise SelectionError(
        f"{function.name}: its template {folder.relative_to(project)} is not there: faas-cli template pull"
    )


def _missing_secrets(function: Function, project: Path) -> list[str]:
    return [
        f"{function.name}: its secret {secret} is missing, put it into .secrets/{secret}"
        for secret in function.secrets
        if secret not in pushing_secrets(function.environment) and not (project / ".secrets" / secret).is_file()
    ]

"""Read a stack file as faas-cli reads it: substitution first, then YAML whose scalars are all text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from substitution import SubstitutionError, substitute

DEFAULT_NAMESPACE = "openfaas-fn"
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class StackFileError(Exception):
    """The stack file cannot be used; the message names the place."""


@dataclass(frozen=True)
class Function:
    """A function of the stack file, its environment files read."""

    name: str
    lang: str
    handler: Path
    image: str
    namespace: str = DEFAULT_NAMESPACE
    fprocess: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[str] = ()
    constraints: Sequence[str] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)
    requests: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Stack:
    """A stack file: its functions by name, and the paths that each of them gets a copy of."""

    functions: Mapping[str, Function]
    copied_paths: Sequence[str] = ()


def read_stack(path: Path, project: Path, environ: Mapping[str, str]) -> Stack:
    """Read the stack file *path*, whose own paths are relative to *project*; raise `StackFileError`."""
    content = _mapping(_load(path, environ), str(path))
    provider = _mapping(content.get("provider"), "provider").get("name")
    if provider != "openfaas":
        raise StackFileError(f'{path}: provider.name is {provider!r}, and only "openfaas" is valid')
    functions = {
        name: _function(name, _mapping(fields, name), project)
        for name, fields in _mapping(content.get("functions"), "functions").items()
    }
    configuration = _mapping(content.get("configuration"), "configuration")
    return Stack(functions, _texts(configuration.get("copy"), "configuration.copy"))


def _function(name: str, fields: Mapping[str, Any], project: Path) -> Function:
    if not NAME.fullmatch(name):
        raise StackFileError(f"{name}: a function's name has lower-case letters, digits and hyphens only")
    handler = project / str(fields.get("handler") or name)
    if not handler.is_dir():
        raise StackFileError(f"{name}: its handler {fields.get('handler')} is no folder in {project}")
    files = _texts(fields.get("environment_file"), f"{name}.environment_file")
    return Function(
        name=name,
        lang=str(fields.get("lang", "")),
        handler=handler.resolve(),
        image=str(fields.get("image") or f"{name}:latest"),
        namespace=str(fields.get("namespace") or DEFAULT_NAMESPACE),
        fprocess=str(fields.get("fprocess") or ""),
        # The files win over the stack file's own, as they do in faas-cli.
        environment=_text_mapping(fields, name, "environment") | _environment(files, project),
        secrets=_texts(fields.get("secrets"), f"{name}.secrets"),
        constraints=_texts(fields.get("constraints"), f"{name}.constraints"),
        labels=_text_mapping(fields, name, "labels"),
        annotations=_text_mapping(fields, name, "annotations"),
        limits=_text_mapping(fields, name, "limits"),
        requests=_text_mapping(fields, name, "requests"),
    )


def _environment(files: Iterable[str], project: Path) -> dict[str, str]:
    """Read environment files in their order; faas-cli substitutes nothing in them."""
    environment: dict[str, str] = {}
    for name in files:
        content = _mapping(_load(project / name, None), name)
        environment |= _text_mapping(content, name, "environment")
    return environment


class _TextLoader(yaml.SafeLoader):
    """Read every scalar as text, so that ``1.10`` and ``true`` reach the function as they were written."""

    # Merge keys (``<<: *anchor``) alone are resolved.
    yaml_implicit_resolvers = {"<": [("tag:yaml.org,2002:merge", re.compile(r"^(?:<<)$"))]}  # noqa: RUF012  # PyYAML's own attribute


def _load(path: Path, environ: Mapping[str, str] | None) -> object:
    try:
        text = path.read_text()
        # A SafeLoader, whatever its name: it makes lists, mappings and text.
        return yaml.load(text if environ is None else substitute(text, environ), _TextLoader)  # noqa: S506
    except (OSError, yaml.YAMLError, SubstitutionError) as error:
        raise StackFileError(f"{path}: {error}") from error


def _mapping(value: object, place: str) -> Mapping[str, Any]:
    if not value:
        return {}
    if not isinstance(value, dict):
        raise StackFileError(f"{place}: should be a mapping")
    return value


def _text_mapping(fields: Mapping[str, Any], name: str, key: str) -> dict[str, str]:
    values = _mapping(fields.get(key), f"{name}.{key}")
    if not all(isinstance(value, str) for value in values.values()):
        raise StackFileError(f"{name}.{key}: each value should be text")
    return dict(values)


def _texts(value: object, place: str) -> list[str]:
    if not value:
        return []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise StackFileError(f"{place}: should be a list of texts")
    return value

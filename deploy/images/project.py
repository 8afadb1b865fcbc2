"""The places of this project, and what its stack file says of builds."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "template" / "python-fastapi"
STACK = ROOT / "stack.yml"
SUBSTITUTION = re.compile(r"\$\{(\w+)(?::-([^}]*))?\}")


@dataclass(frozen=True)
class Function:
    """What a build needs to know of a function."""

    name: str
    handler: Path
    image: str
    build_args: Mapping[str, str]
    build_options: Sequence[str] = ()
    build_secrets: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] | None = None
    environment: Mapping[str, str] | None = None
    secrets: Sequence[str] = ()


def functions(stack: Path = STACK) -> list[Function]:
    """Return the functions of *stack*."""
    text = SUBSTITUTION.sub(lambda match: os.environ.get(match[1]) or match[2] or "", stack.read_text())
    found: Mapping[str, Mapping[str, Any]] = yaml.safe_load(text)["functions"]
    return [
        Function(
            name=name,
            handler=(stack.parent / fields["handler"]).resolve(),
            image=fields["image"],
            build_args={key: str(value) for key, value in (fields.get("build_args") or {}).items()},
            build_options=fields.get("build_options") or (),
            build_secrets={key: str(stack.parent / path) for key, path in (fields.get("build_secrets") or {}).items()},
            limits=fields.get("limits"),
            environment={key: str(value) for key, value in (fields.get("environment") or {}).items()},
            secrets=fields.get("secrets") or (),
        )
        for name, fields in found.items()
    ]


def additional_packages(function: Function) -> str:
    """Return ADDITIONAL_PACKAGE as faas-cli passes it: the function's own and its build options', sorted."""
    options = {
        option["name"]: option["packages"]
        for option in yaml.safe_load((TEMPLATE / "template.yml").read_text())["build_options"]
    }
    own = function.build_args.get("ADDITIONAL_PACKAGE", "").split()
    return " ".join(sorted({*own, *(name for option in function.build_options for name in options[option])}))


def base_image() -> str:
    """Return the name of the shared base image, in the registry and with the tag that the stack file uses."""
    return f"{os.environ.get('REGISTRY') or 'localhost:5000'}/faasbase:{os.environ.get('TAG') or 'latest'}"

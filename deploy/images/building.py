"""Build images: by faas-cli where it is there, else by the steps that it takes."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import yaml

from .engine import Engine, docker_shim, run_build
from .project import ROOT, TEMPLATE, Function, additional_packages, base_image
from .staging import stage

PIP_CONFIGURATIONS = ("/etc/pip.conf", "~/.pip/pip.conf", "~/.config/pip/pip.conf")
DEFAULT_BASE = "base"
DEFAULT_ARGUMENTS = {"BASE_IMAGE": DEFAULT_BASE, "SHAPE": "direct"}
"""The Dockerfile's own: older Buildah chooses stages by given arguments only."""


@dataclass(frozen=True)
class Built:
    """An image, and how it came to be."""

    image: str
    seconds: float
    log: str = field(repr=False)


class Builder:
    """Builds with one engine and one set of base images; contexts and tools go to *folder*."""

    def __init__(self, engine: Engine, folder: Path, bases: Mapping[str, str]) -> None:
        self.engine = engine
        self.folder = folder
        self._bases = {name: image for name, image in bases.items() if image}

    def base(self, image: str = "") -> Built:
        """Build the shared base image by the project's own Dockerfile."""
        return self.staged(TEMPLATE, image or base_image(), {}, "--file", str(ROOT / "Dockerfile"))

    def function(self, function: Function, *options: str, base: str = DEFAULT_BASE) -> Built:
        """
        Build *function* on the image *base*, or on a base of its own.

        Raises:
            EngineError: A step failed, as the function's tests can make it; the message ends with the log.
        """
        packages = additional_packages(function)
        arguments = {"BASE_IMAGE": base, **function.build_args, "ADDITIONAL_PACKAGE": packages}
        if shutil.which("faas-cli") and not options:
            return self._by_faas_cli(function, arguments)
        context = stage(TEMPLATE, function.handler, self.folder / "build" / function.name)
        secrets = [f"--secret=id={name},src={path}" for name, path in function.build_secrets.items()]
        return self.staged(context, function.image, arguments, *secrets, *options)

    def staged(self, context: Path, image: str, arguments: Mapping[str, str], *options: str) -> Built:
        """Build *image* of what is in *context*; raise `EngineError` with the log where a step fails."""
        started = time.monotonic()
        given = {**DEFAULT_ARGUMENTS, **self._bases, **arguments}
        flags = [flag for name, value in given.items() for flag in ("--build-arg", f"{name}={value}")]
        flags += [flag for name, path in self._secrets.items() for flag in ("--secret", f"id={name},src={path}")]
        log = self.engine.build(context, image, [*flags, *options])
        return Built(image, time.monotonic() - started, log)

    @cached_property
    def _secrets(self) -> Mapping[str, str]:
        """pip's configuration of this machine, which a build cannot do without where an index of its own is in use."""
        return {"pipconf": str(path)} if (path := pip_configuration()) else {}

    def _by_faas_cli(self, function: Function, arguments: Mapping[str, str]) -> Built:
        """Have faas-cli stage and build, in a project that holds this template and this function."""
        started = time.monotonic()
        project = self.folder / "project" / function.name
        shutil.rmtree(project, ignore_errors=True)
        shutil.copytree(TEMPLATE, project / "template" / TEMPLATE.name)
        fields = {
            "lang": TEMPLATE.name,
            "handler": str(function.handler),
            "image": function.image,
            "build_args": {**DEFAULT_ARGUMENTS, **self._bases, **arguments},
            "build_secrets": {**self._secrets, **function.build_secrets},
        }
        stack = {"version": "1.0", "provider": {"name": "openfaas"}, "functions": {function.name: fields}}
        (project / "stack.yaml").write_text(yaml.safe_dump(stack))
        environ = docker_shim(self.engine, self.folder)
        log = run_build(function.image, ["faas-cli", "build"], environ, project)
        return Built(function.image, time.monotonic() - started, log)


def pip_configuration() -> Path | None:
    """Return the file with pip's configuration of this machine: $PIP_CONFIG_FILE, or the first that there is."""
    named = os.environ.get("PIP_CONFIG_FILE", "")
    if named == os.devnull:
        # pip takes that for none at all.
        return None
    paths = [Path(place).expanduser() for place in (named, *PIP_CONFIGURATIONS) if place]
    return next((path.resolve() for path in paths if path.is_file()), None)

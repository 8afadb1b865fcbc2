"""``python -m deploy.images``: build the shared base, every function of the stack file and a new one, and report."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from .bill_of_materials import bill_of_materials, write
from .building import Builder
from .engine import Engine, EngineError, find_engine
from .project import ROOT, TEMPLATE, Function, functions
from .report import Weight, table, weigh
from .standins import base_images
from .vulnerabilities import Look, look

FOLDER = ROOT / "build" / "images"
NEW = Function("hello", TEMPLATE / "function", "localhost:5000/hello:latest", {})
"""What ``faas-cli new --lang python-fastapi hello`` hands out."""


def main() -> None:
    """Build, report on stdout, and exit with 1 where ``--strict`` asks for it."""
    given = options().parse_args()
    # Progress is for people: what --json prints stands alone.
    with contextlib.redirect_stdout(sys.stderr):
        engine = find_engine(FOLDER)
        base, images = build(engine)
        looks = {image: examine(engine, image, bill(name)) for name, image in images.items()}
        weights = weigh(engine, images.values(), base)
    print(as_json(weights, looks) if given.json else as_text(weights, looks))
    if given.strict and any(look.found for found in looks.values() for look in found):
        sys.exit(1)


def options() -> argparse.ArgumentParser:
    """Return what reads the command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy.images", description="Build every image and report.")
    parser.add_argument("--json", action="store_true", help="report as JSON")
    parser.add_argument("--strict", action="store_true", help="exit with 1 where a vulnerability is known")
    return parser


def build(engine: Engine) -> tuple[str, Mapping[str, str]]:
    """Build all and return the name of the base image and, by function, those of the others."""
    builder = Builder(engine, FOLDER, base_images(engine))
    base = builder.base()
    print(f"{base.image}: {base.seconds:.0f} s")
    images = {}
    for function in [*functions(), NEW]:
        built = builder.function(function, base=base.image)
        print(f"{built.image}: {built.seconds:.0f} s")
        images[function.name] = built.image
    return base.image, images


def bill(function: str) -> Path:
    """Return where the bill of materials of *function* is kept."""
    return FOLDER / f"{function}.cdx.json"


def examine(engine: Engine, image: str, target: Path) -> list[Look]:
    """Write the bill of materials of *image* to *target*, and look for known vulnerabilities in what it lists."""
    bom = bill_of_materials(engine, image)
    write(bom, target)
    print(f"{target.relative_to(ROOT)}: {len(bom.components)} components")
    return look(engine, image, bom)


def as_text(weights: Sequence[Weight], looks: Mapping[str, Sequence[Look]]) -> str:
    """Return for people what images weigh, and below it what each look for vulnerabilities says."""
    lines = [f"{image}: {line}" for image, found in looks.items() for look in found for line in look.lines()]
    return "\n".join([table(weights), "", *lines])


def as_json(weights: Sequence[Weight], looks: Mapping[str, Sequence[Look]]) -> str:
    """Return the same for a machine."""
    known = {image: [asdict(look) for look in found] for image, found in looks.items()}
    return json.dumps({"images": [weight.as_json() for weight in weights], "vulnerabilities": known}, indent=2)


if __name__ == "__main__":
    try:
        main()
    except EngineError as exc:
        sys.exit(str(exc))

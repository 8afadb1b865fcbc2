"""``python -m deploy.images``: build the shared base, every function of the stack file and a new one, and report."""

from __future__ import annotations

import sys

from .building import Builder
from .engine import EngineError, find_engine
from .project import ROOT, TEMPLATE, Function, functions
from .standins import base_images

FOLDER = ROOT / "build" / "images"
NEW = Function("hello", TEMPLATE / "function", "localhost:5000/hello:latest", {})
"""What ``faas-cli new --lang python-fastapi hello`` hands out."""


def main() -> None:
    engine = find_engine(FOLDER)
    builder = Builder(engine, FOLDER, base_images(engine))
    base = builder.base()
    print(f"{base.image}: {base.seconds:.0f} s")
    for function in [*functions(), NEW]:
        built = builder.function(function, base=base.image)
        print(f"{built.image}: {built.seconds:.0f} s")


if __name__ == "__main__":
    try:
        main()
    except EngineError as exc:
        sys.exit(str(exc))

"""Images of one test: what they are, how long they took, and what was said while they were built."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from deploy.images.building import Builder, Built
from deploy.images.project import Function
from tests.e2e.conftest import image_name, write
from tests.processes import Source

HOST_NETWORK = "--network=host"
"""An engine's option with which a build reaches servers of this machine."""
_numbers = itertools.count(1)


@contextlib.contextmanager
def built(
    builder: Builder,
    base: str,
    source: Source,
    *options: str,
    build_options: Sequence[str] = (),
    **build_args: str,
) -> Iterator[Built]:
    """
    Build *source* on *base* for the time of the block.

    *options* are the engine's; without any, faas-cli builds where it is there.

    Raises:
        EngineError: A step failed; the message ends with the log.
    """
    image = image_name("built", next(_numbers))
    with tempfile.TemporaryDirectory(prefix="handler-") as folder:
        handler = source if isinstance(source, Path) else write(source, Path(folder))
        function = Function("built", handler, image, build_args, build_options)
        try:
            yield builder.function(function, *options, base=base)
        finally:
            builder.engine.remove_image(image)


@contextlib.contextmanager
def built_of(builder: Builder, base: str, context: Path, *options: str) -> Iterator[Built]:
    """Build what is staged in *context* on *base* for the time of the block; raise `EngineError` as `built` does."""
    image = image_name("staged", next(_numbers))
    try:
        yield builder.staged(context, image, {"BASE_IMAGE": base}, *options)
    finally:
        builder.engine.remove_image(image)


def layers(builder: Builder, image: str) -> Sequence[str]:
    """Return the digests of the layers of *image*, the lowest first."""
    found: Sequence[str] = builder.engine.inspect(image)["RootFS"]["Layers"]
    return found


def run_in(builder: Builder, image: str, *command: str) -> str:
    """Run *command* in a container of *image*, as root, who sees everything, and return what it prints."""
    given = ["--rm", "--no-healthcheck", "--network=none", "--user=0", "--entrypoint", command[0]]
    return builder.engine.run("run", *given, image, *command[1:])

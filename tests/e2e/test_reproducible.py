"""The same function makes the same layers, whenever and wherever it is built: they are pushed and pulled once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from deploy.images.building import Builder
from deploy.images.project import ROOT
from tests.e2e.building import built
from tests.e2e.layers import inspected

SAMPLE = ROOT / "functions" / "image-processor"
YESTERDAY_SECONDS = 86400


def test_code_and_packages_make_the_same_layers_again(
    builder: Builder, base_image: str, bases: Mapping[str, str], tmp_path: Path
) -> None:
    """Built twice without a cache, the second time from a checkout with other times and modes."""
    first = _own_layers(builder, base_image, bases, SAMPLE)
    second = _own_layers(builder, base_image, bases, _checked_out_again(tmp_path / "checkout"))
    assert {folder: len(layers) for folder, layers in first.items()} == {"opt/function": 1, "home/app": 1}
    assert second == first


def _own_layers(builder: Builder, base: str, bases: Mapping[str, str], handler: Path) -> Mapping[str, list[str]]:
    """Build *handler* anew and return the digests of the layers with its packages, and of those with its code."""
    with (
        built(builder, base, handler, "--no-cache") as image,
        inspected(builder.engine, image.image, bases["PYTHON_IMAGE"]) as inspection,
    ):
        return {folder: inspection.layers_with(folder) for folder in ("opt/function", "home/app")}


def _checked_out_again(target: Path) -> Path:
    shutil.copytree(SAMPLE, target)
    for path in target.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
        changed = path.stat().st_mtime - YESTERDAY_SECONDS
        os.utime(path, (changed, changed))
    return target

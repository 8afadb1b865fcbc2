"""How many cores the image-processor takes itself to have."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.staging import FUNCTIONS

CORES = len(os.sched_getaffinity(0))
FOLDER = FUNCTIONS / "image-processor"


@pytest.fixture(scope="module")
def limits() -> ModuleType:
    """Import limits.py by itself, which needs no other module of the function."""
    spec = importlib.util.spec_from_file_location("image_processor_limits", FOLDER / "limits.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu.max": "150000 100000\n"}, min(2, CORES)),
        ({"cpu.max": "6400000 100000\n"}, CORES),
        ({"cpu.max": "max 100000\n"}, CORES),
        ({"cpu.max": "nonsense\n"}, CORES),
        ({"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, CORES),
        ({}, CORES),
    ],
)
def test_share_of_the_container_counts_and_not_the_machine(
    limits: ModuleType, tmp_path: Path, files: dict[str, str], cores: int
) -> None:
    """Rounded up, both versions of cgroups."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert limits.usable_cores(tmp_path) == cores


def test_readme_tells_the_defaults(limits: ModuleType) -> None:
    """Of each setting, as the code has it; workers never more than four."""
    readme = (FOLDER / "README.md").read_text()
    usual = limits.Limits()
    assert 1 <= usual.workers <= limits.MAX_WORKERS == 4
    rows = dict(re.findall(r"^\| `(IMAGE_\w+)` \| ([^|]+?) \|", readme, re.MULTILINE))
    assert rows == {
        "IMAGE_WORKERS": "cores of the container, 4 at most",
        "IMAGE_QUEUE": str(usual.queue),
        "IMAGE_WAIT": f"{usual.wait_seconds:g}s",
        "IMAGE_MAX_MEGAPIXELS": str(usual.max_megapixels),
        "IMAGE_MAX_UPLOAD_MIB": str(usual.max_upload_mib),
        "IMAGE_UPLOADS_MIB": str(usual.uploads_mib),
        "IMAGE_CACHE_TTL": f"{usual.cache_seconds / 3600:g}h",
        "IMAGE_URL_TTL": f"{usual.url_seconds:g}s",
    }

"""nightly, called as the cron-connector calls it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from tests.child import Process
from tests.order_chain import memory_limit
from tests.processes import run_function
from tests.staging import FUNCTIONS
from tests.wire import Answer, call

pytestmark = pytest.mark.anyio

FOLDER = FUNCTIONS / "nightly"
CRON = {"X-Topic": "cron-function", "X-Connector": "cron-connector"}


@pytest.fixture
def usage() -> ModuleType:
    """Import usage.py by itself, which needs no other module of the function."""
    spec = importlib.util.spec_from_file_location("nightly_usage", FOLDER / "usage.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def nightly(tmp_path: Path) -> AsyncIterator[Process]:
    """Run it with objects in the folder of the test."""
    async with run_function(FOLDER, STORAGE_URL=tmp_path.as_uri()) as function:
        await function.ready()
        yield function


async def struck(nightly: Process, headers: dict[str, str] | None = None) -> Answer:
    """Call it as the connector does when it is time."""
    return await call(nightly.port, method="POST", headers=CRON if headers is None else headers)


def report(folder: Path) -> dict[str, object]:
    """Return the only report that is there."""
    [path] = (folder / "reports").glob("*.json")
    assert path.stem == str(datetime.now(UTC).date())
    document: dict[str, object] = json.loads(path.read_text())
    return document


async def test_connectors_call_writes_the_days_report(nightly: Process, tmp_path: Path) -> None:
    """A repeat replaces it: there is one a day."""
    assert (await struck(nightly)).status == 204
    assert report(tmp_path) == {"folders": {}, "objects": 0, "total_bytes": 0}
    size = len(json.dumps(report(tmp_path)))
    assert (await struck(nightly)).status == 204
    assert report(tmp_path) == {"folders": {"reports": size}, "objects": 1, "total_bytes": size}
    assert nightly.resident_bytes() < memory_limit("nightly") * 0.7


async def test_nobody_chooses_the_day_of_a_report(nightly: Process, tmp_path: Path) -> None:
    """Calls are open to anyone: one that says another day writes today's report."""
    event = {"ce-id": "1", "ce-source": "/t", "ce-type": "cron-function", "ce-specversion": "1.0"}
    assert (await struck(nightly, {**event, "ce-time": "1999-01-01T00:00:00Z"})).status == 204
    assert report(tmp_path)["objects"] == 0


async def test_other_topics_and_calls_write_nothing(nightly: Process, tmp_path: Path) -> None:
    """The first is no event that it takes, the second is none at all."""
    assert (await struck(nightly, {**CRON, "X-Topic": "payments"})).status == 422
    assert (await struck(nightly, {})).status == 404
    assert not (tmp_path / "reports").exists()


async def test_usage_counts_by_folder_and_stays_small(usage: ModuleType) -> None:
    """Folders beyond the hundredth are one."""

    async def listed() -> AsyncIterator[SimpleNamespace]:
        for number in range(150):
            yield SimpleNamespace(key=f"folder-{number}/a/b", size_bytes=2)
        yield SimpleNamespace(key="at-the-top", size_bytes=7)

    found = await usage.measure(SimpleNamespace(list=listed))
    assert (found.objects, found.total_bytes, len(found.folders)) == (151, 307, 101)
    assert (found.folders["folder-0"], found.folders["others"]) == (2, 107)

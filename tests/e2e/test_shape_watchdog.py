"""The contract table holds for an image in which of-watchdog stands in front of the same ``index.py``."""

from __future__ import annotations

import pytest

from deploy.images.engine import Engine
from tests.contract import ROWS
from tests.contract.replay import FUNCTION
from tests.contract.table import Row
from tests.e2e.conftest import Build
from tests.e2e.replaying import replay

pytestmark = [pytest.mark.anyio, pytest.mark.tool("of-watchdog")]

REFUSED = "of-watchdog takes its default, our process behind it does not start, and of-watchdog ends with it"
AS_OURS = {
    "a log line longer than 64 KiB": "the image sets log_buffer_size=-1",
    "a handler over exec_timeout is answered 504 and cancelled": "our process keeps to exec_timeout as well",
    "a body that does not arrive within read_timeout": "our process answers 408 just before of-watchdog's own limit",
    "write_timeout ends a call that has not been answered": "our process answers 504 just before of-watchdog does",
    "X-Timeout of nothing": "of-watchdog has no limit then, our process keeps to exec_timeout",
    "exec_timeout=ten": REFUSED,
    "read_timeout=10 s": REFUSED,
    "write_timeout=-5": REFUSED,
    "healthcheck_interval=1d": REFUSED,
    "max_inflight=many": REFUSED,
    "max_inflight=-1": REFUSED,
    "TMPDIR that cannot be written": "the lock file is ours to write, and the log says why it cannot be",
}
"""Rows in which our process behind of-watchdog makes good what of-watchdog alone does not do."""

LEFT_OUT = {
    "suppress_lock leaves the lock file to others": "the image sets it, and the other who writes the lock is ours",
    "SIGINT, the developer's Ctrl-C, has no window and finishes what runs": (
        "of-watchdog has no handler for it, and a container's first process without one is not sent it at all"
    ),
}


@pytest.fixture(scope="module")
def image(build: Build) -> str:
    """Build the function of the contract behind of-watchdog."""
    return build(FUNCTION, "contract", shape="watchdog")


@pytest.mark.parametrize("row", [row for row in ROWS if row.name not in LEFT_OUT], ids=lambda row: row.name)
async def test_row(row: Row, engine: Engine, image: str) -> None:
    """Every row holds as for of-watchdog, or as for our process where that does better."""
    await replay(engine, image, row, shape="watchdog", target="ours" if row.name in AS_OURS else "of-watchdog")


def test_exceptions_are_rows() -> None:
    """Names of rows that are not in the table any more would except nothing."""
    assert {*AS_OURS, *LEFT_OUT} <= {row.name for row in ROWS}

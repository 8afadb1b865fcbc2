"""The contract table holds for our process, and for of-watchdog in front of a function."""

from __future__ import annotations

import pytest

from tests.contract import ROWS
from tests.contract.replay import replay
from tests.contract.table import Row


@pytest.mark.anyio
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_our_process(row: Row) -> None:
    """Every row holds for the direct shape."""
    await replay(row, "ours")


@pytest.mark.anyio
@pytest.mark.tool("of-watchdog")
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_of_watchdog(row: Row) -> None:
    """Every row holds for the real of-watchdog, so that the table tells the truth about it."""
    await replay(row, "of-watchdog")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_difference_says_why(row: Row) -> None:
    """A row that expects something else of ours has a reason, and only such a row has one."""
    assert row.source
    assert bool(row.differs) == row.has_difference()


def test_names_tell_rows_apart() -> None:
    """No two rows have the same name."""
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names))

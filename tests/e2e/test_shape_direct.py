"""The contract table holds for an image in the direct shape."""

from __future__ import annotations

import pytest

from deploy.images.engine import Engine
from tests.contract import ROWS
from tests.contract.replay import FUNCTION
from tests.contract.table import Row
from tests.e2e.conftest import Build
from tests.e2e.replaying import replay

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def image(build: Build) -> str:
    """Build the function of the contract."""
    return build(FUNCTION, "contract")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
async def test_row(row: Row, engine: Engine, image: str) -> None:
    """Every row holds as it does for the bare process."""
    await replay(engine, image, row, shape="direct", target="ours")

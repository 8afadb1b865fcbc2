"""What `@idempotent` needs is looked for at start: a place for records, and results that can be recorded."""

from __future__ import annotations

import pytest

from tests.processes import run_function

pytestmark = pytest.mark.anyio

BESIDE = {
    "imported by name": ("from .orders import place", "await place(order)"),
    "in a module": ("from . import orders", "await orders.place(order)"),
    "a module further": ("from . import shop", "await shop.orders.place(order)"),
    "method": ("from .desk import Desk", "await Desk.place(order)"),
}
BESIDE_ORDERS = """
from fastapi.responses import StreamingResponse
from faasbase import idempotent

@idempotent(key="order")
async def place(order: int) -> StreamingResponse:
    return StreamingResponse(iter(()))
"""
DESK = """
from fastapi.responses import StreamingResponse
from faasbase import idempotent

class Desk:
    @staticmethod
    @idempotent(key="order")
    async def place(order: int) -> StreamingResponse:
        return StreamingResponse(iter(()))
"""
IN_A_FACTORY = """
from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from faasbase import idempotent

def made() -> APIRouter:
    inner, outer = APIRouter(), APIRouter()

    @inner.post("/")
    @idempotent()
    async def place(order: int) -> StreamingResponse:
        return StreamingResponse(iter(()))

    outer.include_router(inner, prefix="/orders")
    return outer

router = made()
"""


async def test_result_that_cannot_be_recorded_stops_the_start() -> None:
    handler = """
from fastapi.responses import StreamingResponse
from faasbase import idempotent

@idempotent()
async def handle(order: dict) -> StreamingResponse:
    return StreamingResponse(iter(()))
"""
    async with run_function(handler, IDEMPOTENCY_URL="memory://").unwaited() as function:
        assert await function.exited() == 1
        assert "must return a response with a body" in function.output()


@pytest.mark.parametrize("name", [*BESIDE, "in a factory"])
async def test_handlers_beside_the_surface_are_checked_at_start(name: str) -> None:
    source: str | dict[str, str] = IN_A_FACTORY
    if name in BESIDE:
        imports, calls = BESIDE[name]
        handler = f"{imports}\n\nasync def handle(order: int) -> int:\n    {calls}\n    return 1\n"
        shop = "from . import orders\n"
        source = {"handler.py": handler, "orders.py": BESIDE_ORDERS, "shop.py": shop, "desk.py": DESK}
    async with run_function(source, IDEMPOTENCY_URL="memory://").unwaited() as function:
        assert await function.exited() == 1
        assert "place must return a response with a body" in function.output()


@pytest.mark.parametrize(
    "url",
    ["mysql://root:hunter2@x", "redis://x?lease=hunter2", "redis://x?deadline=hunter2", "redis://x?deadline=31s",
     "redis://x?max_result_bytes=0", "redis://x?deadline=1s&deadline=2s", "redis://x?username=", "memory://?hunter2=1"],
)  # fmt: skip
async def test_bad_place_stops_the_start_of_a_function_that_records_nothing(url: str) -> None:
    """As `CACHE_URL` does where nothing is cached: whoever sets it relies on it."""
    async with run_function("async def handle() -> None: ...\n", IDEMPOTENCY_URL=url).unwaited() as function:
        assert await function.exited() == 1
        assert "setting IDEMPOTENCY_URL cannot be used" in function.output()
        assert "hunter2" not in function.output()
        assert "Traceback" not in function.output()

"""The life of those who fetch events, within that of the process."""

from __future__ import annotations

import pytest

from deploy.brokers.nats import NatsServer
from tests.processes import run_function

pytestmark = pytest.mark.anyio

HANDLER = """
from contextlib import asynccontextmanager

from faasbase import Event, on_event


@asynccontextmanager
async def lifespan(app):
    print("opened", flush=True)
    yield
    print("closed", flush=True)


@on_event("order.created")
async def take(event: Event[dict]) -> None: ...
"""


async def test_source_that_does_not_start_is_one_line_and_the_lifespan_closes(nats_server: NatsServer) -> None:
    """Nothing but the reason is logged, and what the function has opened it closes."""
    url = f"{nats_server.url}/NOWHERE?durable=nobody"
    async with run_function(HANDLER, EVENTS_URL=f"{url},{url}2").unwaited() as function:
        assert await function.exited() == 1
        loud = [line for line in function.logs() if line["level"] in ("warning", "error", "critical")]
        assert [line["level"] for line in loud] == ["critical"], loud
        assert "NOWHERE" in loud[0]["message"]
        assert [line for line in function.lines() if not line.startswith("{")] == ["opened", "closed"]


@pytest.mark.parametrize("url", ["kafka://127.0.0.1:9/orders", "nats://127.0.0.1:9/ORDERS", "memory://orders"])
async def test_source_without_handlers_stops_the_start(url: str) -> None:
    """Nobody would ever take what it fetches."""
    async with run_function("async def handle() -> None: ...\n", EVENTS_URL=url).unwaited() as function:
        assert await function.exited() == 1
        assert "handler.py has no @on_event handler" in function.logs()[-1]["message"]

"""Rolling restarts of containers under load lose no call, in both shapes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import anyio
import pytest
from anyio import to_thread

from deploy.images.engine import Engine
from tests.e2e.conftest import Build
from tests.e2e.containers import PORT, Container, run_container
from tests.load import Load, Replica, report

WINDOW_SECONDS = 1.0
# A caller that decides at the last moment may connect a little later; Kubernetes takes seconds here.
MARGIN_SECONDS = 0.05
CALLS_A_SECOND = 100
LIMITS = {"cpu": "1000m", "memory": "256Mi"}
SETTINGS = {"healthcheck_interval": f"{WINDOW_SECONDS}s", "write_timeout": "10s"}
WORK = """
import asyncio

from fastapi import APIRouter, Request

router = APIRouter()


@router.post("/work")
async def work(request: Request, seconds: float = 0) -> dict[str, int]:
    body = await request.body()
    await asyncio.sleep(seconds)
    return {"bytes": len(body)}
"""


@asynccontextmanager
async def running(engine: Engine, image: str) -> AsyncIterator[Container]:
    """Run *image*, healthy, without holding up the load meanwhile."""
    context = run_container(engine, image, limits=LIMITS, env=SETTINGS)
    container = await to_thread.run_sync(context.__enter__)
    try:
        await to_thread.run_sync(container.wait_healthy)
        yield container
    finally:
        # A cancelled test still removes its containers.
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(context.__exit__, None, None, None)


async def retire(container: Container, replica: Replica) -> None:
    """Stop the container as Kubernetes does, and route to it until its window is over; it ends well."""
    replica.until = time.monotonic() + WINDOW_SECONDS - MARGIN_SECONDS
    assert await to_thread.run_sync(container.stop) == 0, container.tail()


async def restart(load: Load, engine: Engine, image: str, times: int, containers: AsyncExitStack) -> None:
    """Replace the one container *times* times, each from the moment that its successor is healthy."""
    old: tuple[Container, Replica] | None = None
    async with asyncio.TaskGroup() as retiring:
        for number in range(times + 1):
            container = await containers.enter_async_context(running(engine, image))
            replica = Replica(f"container {number}", PORT, container.address)
            load.replicas.append(replica)
            if old is not None:
                retiring.create_task(retire(*old))
                # The older ones are still finishing their long calls meanwhile.
                await asyncio.sleep(WINDOW_SECONDS)
            old = container, replica


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("shape", "restarts"),
    [("direct", 20), pytest.param("watchdog", 5, marks=pytest.mark.tool("of-watchdog"))],
)
async def test_no_call_fails_while_containers_are_replaced(
    engine: Engine, build: Build, shape: str, restarts: int
) -> None:
    """New and pooled connections, long and short calls: from the first healthy answer to the window's end."""
    image = await to_thread.run_sync(lambda: build(WORK, "work", shape=shape))
    load = Load(rate=CALLS_A_SECOND, seed=restarts)
    async with AsyncExitStack() as containers, load.running():
        await restart(load, engine, image, restarts, containers)
    assert not load.failures, report(load.failures)
    assert load.done > restarts * CALLS_A_SECOND * WINDOW_SECONDS
    assert load.pooled > restarts * 10
    assert len(load.too_late) < load.done / 100, report(load.too_late)

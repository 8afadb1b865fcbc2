"""A whole function with its cache on Redis: settings, metrics, a stop in an outage, and nothing of the password."""

from __future__ import annotations

import json
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from tests.processes import run_function
from tests.servers import RedisServer
from tests.wire import call

pytestmark = pytest.mark.anyio

HANDLER = """
from faasbase import cached

runs = []

@cached(ttl=60)
async def square(number: int) -> int:
    runs.append(number)
    return number * number

@cached(ttl=60)
def cube(number: int) -> int:
    runs.append(number)
    return number ** 3

async def handle(number: int) -> dict[str, int]:
    import asyncio
    return {"square": await square(number), "cube": await asyncio.to_thread(cube, number), "runs": len(runs)}
"""


async def test_function_uses_the_server_and_goes_on_without_it(tmp_path: Path) -> None:
    with RedisServer(tmp_path, password="canary-s3cret") as server:
        url = f"redis://app:canary-s3cret@127.0.0.1:{server.port}/0"
        async with run_function(HANDLER, CACHE_URL=url) as function:
            for runs in (2, 2):
                answer = await call(function.port, "/?number=3")
                assert json.loads(answer.body) == {"square": 9, "cube": 27, "runs": runs}
                await anyio.sleep(0.2)
            assert int(server.command("DBSIZE")) == 2
            server.stop()
            answers = [json.loads((await call(function.port, "/?number=3")).body) for _ in range(5)]
            assert [answer["square"] for answer in answers] == [9] * 5
            metrics = (await call(function.metrics_port, "/metrics")).body.decode()
            assert "faas_cache_up 0.0" in metrics
            assert 'faas_cache_operations_total{operation="get",outcome="hit"}' in metrics
            assert await anyio.to_thread.run_sync(function.stop) == 0
            assert "canary" not in function.output() + metrics
            assert str(server.port) not in function.output()


async def test_bad_option_stops_the_start_by_its_setting() -> None:
    async with run_function(HANDLER, CACHE_URL="redis://:canary@localhost?size=1").unwaited() as function:
        assert await function.exited() == 1
        assert "CACHE_URL" in function.output()
        assert "canary" not in function.output()

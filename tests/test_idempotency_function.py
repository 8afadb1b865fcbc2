"""`@idempotent` as callers meet it: functions of their own processes, two replicas, events, starts."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes import run_function
from tests.servers import RedisServer
from tests.wire import Answer, call

pytestmark = pytest.mark.anyio

HANDLER = """
from __future__ import annotations

import asyncio
import os
import time

from fastapi import APIRouter, Response
from pydantic import BaseModel

from faasbase import Event, Problem, current_operation, idempotent, on_event

router = APIRouter()


class Order(BaseModel):
    id: int
    seconds: float = 0.0


class Receipt(BaseModel):
    order: int
    run: str


def run(order):
    print("ran", order.id, flush=True)
    return Receipt(order=order.id, run=os.urandom(8).hex())


@router.post("/", status_code=201)
@idempotent(in_progress="2s")
async def place(order: Order, response: Response) -> Receipt:
    await asyncio.sleep(order.seconds)
    response.headers["Location"] = f"/orders/{order.id}"
    return run(order)


@router.post("/effect")
@idempotent(in_progress="2s")
async def effect(order: Order) -> int:
    done = await current_operation().once("count", "return redis.call('INCR', KEYS[1])", ["effects"])
    print("began", flush=True)
    await asyncio.sleep(order.seconds)
    return done


@router.post("/plain-effect")
@idempotent(in_progress="2s")
def plain_effect(order: Order) -> int:
    operation = current_operation()
    operation.blocking.check()
    done = operation.blocking.once("count", "return redis.call('INCR', KEYS[1])", ["plain"])
    run(order)
    return done


@router.post("/waiting")
@idempotent(wait="8s")
def wait_for(order: Order) -> Receipt:
    time.sleep(order.seconds)
    return run(order)


@router.post("/refused")
@idempotent()
async def refuse(order: Order) -> Receipt:
    run(order)
    raise Problem(402, "no money")


@on_event("order.created")
@idempotent(in_progress="5s")
async def fulfil(event: Event[Order]) -> None:
    await asyncio.sleep(event.data.seconds)
    run(event.data)
"""


TYPED = """
from faasbase import idempotent

@idempotent()
async def handle(n: int) -> bytes:
    return b"%d" % n
"""

CLASSIC = """
from faasbase import idempotent

@idempotent()
def handle(event, context) -> dict:
    return {"body": event.query["n"]}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


async def order(port: int, key: str | None = "k", path: str = "/", **fields: Any) -> Answer:
    headers = {"Content-Type": "application/json", **({} if key is None else {"Idempotency-Key": key})}
    return await call(port, path, method="POST", body=json.dumps({"id": 1, **fields}).encode(), headers=headers)


async def settled(port: int, key: str, path: str = "/", **fields: Any) -> Answer:
    """Repeat the order until it is neither in progress nor refused for lack of records."""
    async with asyncio.timeout(20):
        while (answer := await order(port, key, path, **fields)).status in (409, 503):  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    return answer


async def push(port: int, event_id: str, **fields: Any) -> Answer:
    headers = {
        "Content-Type": "application/json",
        "ce-id": event_id,
        "ce-source": "/shop",
        "ce-type": "order.created",
        "ce-specversion": "1.0",
    }
    return await call(port, "/", method="POST", body=json.dumps({"id": 1, **fields}).encode(), headers=headers)


async def test_two_replicas_answer_as_one(server: RedisServer) -> None:
    server.command("FLUSHALL")
    url = f"{server.url}?deadline=8s"
    async with run_function(HANDLER, IDEMPOTENCY_URL=url) as one, run_function(HANDLER, IDEMPOTENCY_URL=url) as two:
        first = await order(one.port)
        assert (first.status, first.header("idempotency-replayed")) == (201, None)
        again = await order(two.port)
        assert (again.status, again.header("idempotency-replayed")) == (201, "true")
        assert (again.body, again.header("location")) == (first.body, "/orders/1")

        other = await order(two.port, id=2)
        assert (other.status, other.header("content-type")) == (422, "application/problem+json")
        for key in (None, "", "x" * 256, "two words"):
            assert (await order(one.port, key)).status == 400

        slow = asyncio.create_task(order(one.port, "slow", seconds=1.5))
        await asyncio.sleep(0.5)
        busy = await order(two.port, "slow", seconds=1.5)
        assert busy.status == 409
        assert int(busy.header("retry-after") or 0) in (1, 2)
        assert (await slow).status == 201

        waited = await asyncio.gather(*(order(p, "w", "/waiting", seconds=0.5) for p in (one.port, two.port, one.port)))
        assert {answer.status for answer in waited} == {200}
        assert len({answer.body for answer in waited}) == 1

        for function in (one, two):
            assert (await order(function.port, "no", "/refused")).status == 402
        assert len([line for line in one.lines() + two.lines() if line.startswith("ran")]) == 5


async def test_redelivered_event_is_handled_once(server: RedisServer) -> None:
    url = f"{server.url}?deadline=8s"
    async with run_function(HANDLER, IDEMPOTENCY_URL=url) as one, run_function(HANDLER, IDEMPOTENCY_URL=url) as two:
        await one.ready()
        await two.ready()
        slow = asyncio.create_task(push(one.port, "e-1", seconds=2.0))
        await asyncio.sleep(0.5)
        busy = await push(two.port, "e-1", seconds=2.0)
        assert (busy.status, busy.header("retry-after") is not None) == (503, True)
        assert (await slow).status == 204
        assert (await push(two.port, "e-1", seconds=2.0)).status == 204
        assert (await push(two.port, "e-1", id=5)).status == 422
        assert len([line for line in one.lines() + two.lines() if line.startswith("ran")]) == 1


async def test_killed_owner_costs_one_lease_and_its_effect_is_not_done_again(server: RedisServer) -> None:
    server.command("FLUSHALL")
    url = f"{server.url}?deadline=8s"
    async with run_function(HANDLER, IDEMPOTENCY_URL=url) as one, run_function(HANDLER, IDEMPOTENCY_URL=url) as two:
        lost = asyncio.create_task(order(one.port, "killed", "/effect", seconds=1.0))
        await one.log_line("began")
        one.send_signal(signal.SIGKILL)
        await asyncio.gather(lost, return_exceptions=True)
        killed_at = time.monotonic()
        answer = await settled(two.port, "killed", "/effect", seconds=1.0)
        assert (answer.status, answer.body) == (200, b"1")
        assert 1.0 < time.monotonic() - killed_at < 8.0
        assert server.command("GET", "effects") == "1"
        plain = [await order(two.port, "plain", "/plain-effect") for _ in range(2)]
        assert [answer.body for answer in plain] == [b"1", b"1"]


async def test_nothing_runs_without_its_records(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server:
        async with run_function(HANDLER, IDEMPOTENCY_URL=f"{server.url}?deadline=500ms") as function:
            server.stop()
            refused = await order(function.port, "gone")
            assert (refused.status, refused.header("retry-after")) == (503, "2")
            assert (await push(function.port, "gone")).status == 503
            assert not [line for line in function.lines() if line.startswith("ran")]
            server.start()
            assert (await settled(function.port, "gone")).status == 201


async def test_cache_url_is_taken_where_nothing_else_is_named(server: RedisServer) -> None:
    async with run_function(HANDLER, CACHE_URL=f"{server.url}?lease=3s") as function:
        assert (await order(function.port, "by-cache")).status == 201
        assert (await order(function.port, "by-cache")).header("idempotency-replayed") == "true"


@pytest.mark.parametrize(
    ("env", "told"),
    [({}, "IDEMPOTENCY_URL must name"), ({"CACHE_URL": "memory://"}, "memory:// is for"),
     ({"IDEMPOTENCY_URL": "mysql://root:hunter2@x"}, "IDEMPOTENCY_URL"),
     ({"IDEMPOTENCY_URL": "redis://x?lease=hunter2"}, "IDEMPOTENCY_URL")],
)  # fmt: skip
async def test_start_needs_a_place_for_records(env: dict[str, str], told: str) -> None:
    async with run_function(HANDLER, **env).unwaited() as function:
        assert await function.exited() == 1
        assert told.partition(" ")[2] in function.output()
        assert "IDEMPOTENCY_URL" in function.output()
        assert "hunter2" not in function.output()
        assert "Traceback" not in function.output()


async def test_all_forms_of_handlers_can_be_idempotent() -> None:
    for source in (TYPED, CLASSIC):
        async with run_function(source, IDEMPOTENCY_URL="memory://") as function:
            answers = [
                await call(function.port, "/?n=3", method="POST", headers={"Idempotency-Key": "a"}) for _ in range(2)
            ]
            assert [a.status for a in answers] == [200, 200]
            assert answers[0].body == answers[1].body
            assert answers[1].header("idempotency-replayed") == "true"
            other = await call(function.port, "/?n=4", method="POST", headers={"Idempotency-Key": "a"})
            assert other.status == 422

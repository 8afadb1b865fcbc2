"""What a handler knows of its call, and what of it is taken from the caller."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.child import Process
from tests.processes import run_function
from tests.wire import call

pytestmark = pytest.mark.anyio

HANDLER = """
import asyncio

from fastapi import APIRouter
from faasbase import current_call

router = APIRouter()
outside = current_call()


@router.get("/")
async def facts() -> dict:
    call = current_call()
    return {
        "call_id": call.call_id,
        "base_url": call.base_url,
        "headers": dict(call.headers),
        "queued_seconds": call.queued_seconds,
        "remaining_seconds": call.remaining_seconds(),
        "outside": outside is None,
    }


@router.get("/threaded")
def threaded() -> str:
    return current_call().call_id


@router.get("/slow")
async def slow() -> str:
    await asyncio.sleep(0.3)
    return current_call().call_id
"""


@pytest.fixture(scope="module")
async def function() -> AsyncIterator[Process]:
    """Run a function that tells what it knows of a call."""
    env = {"OPENFAAS_NAME": "shop", "exec_timeout": "7s", "PROPAGATE_HEADERS": "x-request-id,X-Tenant"}
    async with run_function(HANDLER, **env) as process:
        await process.ready()
        yield process


async def facts(function: Process, **headers: str) -> dict[str, Any]:
    """Return what the handler knows of a call with *headers*."""
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = await call(function.port, "/", headers=given)
    known: dict[str, Any] = answer.json()
    assert answer.header("x-call-id") == known["call_id"]
    return known


async def test_id_of_the_gateway_is_kept(function: Process) -> None:
    """And answered."""
    assert (await facts(function, X_Call_Id="0b1c-7"))["call_id"] == "0b1c-7"


async def test_call_without_an_id_gets_one(function: Process) -> None:
    """A new one each time."""
    ids = {(await facts(function))["call_id"] for _ in range(20)}
    assert {len(call_id) for call_id in ids} == {36}
    assert len(ids) == 20


async def test_there_is_no_call_outside_one(function: Process) -> None:
    """At import, for one."""
    assert (await facts(function))["outside"] is True


@pytest.mark.parametrize(
    ("headers", "base_url"),
    [
        ({"Host": "gateway:8080"}, "http://gateway:8080/function/shop"),
        ({"Host": "pod", "X_Forwarded_Host": "shop.example"}, "http://shop.example/function/shop"),
        ({"Host": "shop.example", "X_Forwarded_Proto": "https"}, "https://shop.example/function/shop"),
        ({"Host": "[::1]:8080"}, "http://[::1]:8080/function/shop"),
        ({"Host": "evil.example/<script>"}, "/function/shop"),
        ({"Host": "gateway", "X_Forwarded_Proto": "javascript"}, "http://gateway/function/shop"),
    ],
)
async def test_public_address_comes_from_checked_headers(
    function: Process, headers: dict[str, str], base_url: str
) -> None:
    """A host that could break out of a link is not used."""
    assert (await facts(function, **headers))["base_url"] == base_url


async def test_chosen_headers_travel(function: Process) -> None:
    """Those of ``PROPAGATE_HEADERS`` and no others."""
    known = await facts(function, X_Request_Id="r-1", X_Tenant="t-1", X_User_Type="admin")
    assert known["headers"] == {"x-request-id": "r-1", "x-tenant": "t-1"}


async def test_time_in_the_queue_is_known(function: Process) -> None:
    """The gateway's start time, in nanoseconds; nonsense is none."""
    known = await facts(function, X_Start_Time=str(time.time_ns() - 2_000_000_000))
    assert 1.9 < known["queued_seconds"] < 4
    assert (await facts(function, X_Start_Time="soon"))["queued_seconds"] is None


async def test_deadline_is_the_shorter_one(function: Process) -> None:
    """``exec_timeout``, or what the caller leaves of it."""
    assert 6 < (await facts(function))["remaining_seconds"] <= 7
    assert 1 < (await facts(function, X_Timeout="2s"))["remaining_seconds"] <= 2
    assert 6 < (await facts(function, X_Timeout="1h"))["remaining_seconds"] <= 7


async def test_calls_side_by_side_keep_their_own(function: Process) -> None:
    """No call sees another's context, on a shared connection or in a thread."""
    paths = ["/slow", "/threaded"] * 20
    answers = await asyncio.gather(
        *(call(function.port, path, headers={"X-Call-Id": f"c-{n}"}) for n, path in enumerate(paths))
    )
    assert [answer.json() for answer in answers] == [f"c-{n}" for n in range(40)]

"""Every error is RFC 9457 problem details with the call's id, and holds no trace and no value that was sent."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.child import Process
from tests.processes import run_function
from tests.wire import Answer, call

pytestmark = pytest.mark.anyio

HANDLER = """
from fastapi import APIRouter, HTTPException
from faasbase import FieldError, Problem
from pydantic import BaseModel

router = APIRouter()


class Order(BaseModel):
    item: str
    amount: int = 1


@router.post("/orders")
async def order(order: Order) -> Order:
    return order


@router.get("/items/{number}")
async def item(number: int) -> dict[str, int]:
    return {"number": number}


@router.get("/teapot")
async def teapot() -> None:
    raise HTTPException(418, "short and stout", headers={"X-Kind": "teapot"})


@router.get("/problem")
async def problem() -> None:
    raise Problem(
        409, "taken", title="Taken", errors=[FieldError("name", "is taken")], retry_after_seconds=1.2
    )


@router.get("/broken")
async def broken() -> None:
    raise RuntimeError("the secret of the broken route")
"""


@pytest.fixture(scope="module")
async def function() -> AsyncIterator[Process]:
    """Run the handler."""
    async with run_function(HANDLER, OPENFAAS_NAME="shop") as process:
        await process.ready()
        yield process


async def order(function: Process, body: bytes) -> Answer:
    """Post *body* as an order."""
    return await call(function.port, "/orders", method="POST", headers={"Content-Type": "application/json"}, body=body)


def assert_problem(answer: Answer, status: int) -> dict[str, Any]:
    """Return the problem details of *answer* after checking that they are complete."""
    assert answer.status == status, answer
    assert answer.header("content-type") == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["call_id"] == answer.header("x-call-id")
    assert "Traceback" not in answer.text
    return problem


async def test_invalid_body_names_its_field(function: Process) -> None:
    """422 as problem details, without the value that was sent."""
    answer = await order(function, b'{"item": "tea", "amount": "much-secret"}')
    problem = assert_problem(answer, 422)
    assert [error["field"] for error in problem["errors"]] == ["body.amount"]
    assert "much-secret" not in answer.text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
async def test_body_that_is_no_order_is_refused(function: Process, body: bytes) -> None:
    """Whatever the bytes are, the caller is told, and nothing breaks."""
    assert_problem(await order(function, body), 422)


async def test_problem_is_answered_as_it_was_raised(function: Process) -> None:
    """Status, title, fields and the time after which to come again."""
    answer = await call(function.port, "/problem", headers={"X-Call-Id": "call-7"})
    problem = assert_problem(answer, 409)
    assert problem["title"] == "Taken"
    assert problem["detail"] == "taken"
    assert problem["errors"] == [{"field": "name", "message": "is taken"}]
    assert problem["call_id"] == "call-7"
    assert answer.header("retry-after") == "2"


async def test_http_exception_is_a_problem_too(function: Process) -> None:
    """FastAPI's own exception keeps its status, detail and headers."""
    answer = await call(function.port, "/teapot")
    assert assert_problem(answer, 418)["detail"] == "short and stout"
    assert answer.header("x-kind") == "teapot"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nowhere", 404), ("DELETE", "/teapot", 405), ("GET", "/items/seven", 422)],
)
async def test_refusals_of_the_router_are_problems(function: Process, method: str, path: str, status: int) -> None:
    """Unknown path, wrong verb, bad parameter."""
    assert_problem(await call(function.port, path, method=method), status)


async def test_crash_tells_the_caller_an_id_and_no_more(function: Process) -> None:
    """The caller's answer has neither trace nor message; the log has both, under the same id."""
    answer = await call(function.port, "/broken", headers={"X-Call-Id": "call-8"})
    problem = assert_problem(answer, 500)
    assert problem["call_id"] == "call-8"
    assert "secret" not in answer.text
    failed = json.loads(await function.log_line("RuntimeError: the secret of the broken route"))
    assert failed["call_id"] == "call-8"
    assert "function/handler.py" in failed["exception"]

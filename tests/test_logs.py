"""One JSON object a line, with the call's ids and without secrets."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.child import Process
from tests.processes import run_function
from tests.wire import call

pytestmark = pytest.mark.anyio

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"

HANDLER = """
import asyncio
import logging
import sys
import warnings

from fastapi import APIRouter, Request

router = APIRouter()
log = logging.getLogger("shop.orders")


@router.post("/log")
async def write(request: Request) -> None:
    fields = await request.json()
    log.warning(fields.pop("message"), extra=fields)


@router.get("/levels")
async def levels() -> None:
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("at %s", name)


@router.get("/thread")
def thread() -> None:
    log.warning("from a thread")


@router.get("/task")
async def task() -> None:
    await asyncio.create_task(later())


async def later() -> None:
    log.warning("from a task")


@router.get("/long")
async def long() -> None:
    log.warning("x" * 700_000)


@router.get("/lines")
async def lines() -> None:
    log.warning("first\\nsecond\\u2028third")


@router.get("/warn")
async def warn() -> None:
    warnings.warn("old fashioned", DeprecationWarning, stacklevel=1)


@router.get("/numbers")
async def numbers() -> None:
    odd = {"ratio": float("nan"), "sides": [float("inf"), -float("inf"), 0.5], "huge": 1 << 20_000}
    log.warning("odd numbers", extra={"odd": odd})


@router.get("/surrogate")
async def surrogate() -> None:
    log.warning("half a pair: \\ud800")
"""


@pytest.fixture(scope="module")
async def function() -> AsyncIterator[Process]:
    """Run a function that logs what it is asked to."""
    async with run_function(HANDLER, LOG_LEVEL="DEBUG", LOG_REDACT="iban") as process:
        await process.ready()
        yield process


async def written(function: Process, message: str, **fields: Any) -> dict[str, Any]:
    """Have the function log *message* with *fields* and return the line."""
    body = json.dumps({"message": message, **fields}).encode()
    await call(function.port, "/log", method="POST", body=body)
    lines = [line for line in function.logs() if line["logger"] == "shop.orders"]
    return lines[-1]


async def test_every_line_is_one_json_object(function: Process) -> None:
    """Start-up, the user's own lines, warnings and lines of several lines included."""
    for path in ("/levels", "/lines", "/warn", "/surrogate", "/nowhere"):
        await call(function.port, path)
    await function.log_line("half a pair")
    parsed = [json.loads(line) for line in function.lines()]
    assert all({"time", "level", "message", "logger", "function"} <= line.keys() for line in parsed)
    assert {line["function"] for line in parsed} == {"probe"}


async def test_lines_of_a_call_carry_its_ids(function: Process) -> None:
    """The user's line and the access line have the gateway's id and the caller's trace."""
    headers = {"X-Call-Id": "call-1", "traceparent": TRACEPARENT}
    await call(function.port, "/levels?of=ids", headers=headers)
    await function.json_line(lambda line: line.get("call_id") == "call-1" and line["logger"] == "faasbase.access")
    mine = [line for line in function.logs() if line.get("call_id") == "call-1"]
    assert [line["message"] for line in mine if line["logger"] == "shop.orders"] == [
        f"at {level}" for level in ("debug", "info", "warning", "error")
    ]
    assert mine[-1]["logger"] == "faasbase.access"
    assert {line["trace_id"] for line in mine} == {TRACE}


@pytest.mark.parametrize("path", ["/thread", "/task"])
async def test_ids_follow_into_threads_and_tasks(function: Process, path: str) -> None:
    """A ``def`` handler and a task of the handler log under the same call."""
    await call(function.port, path, headers={"X-Call-Id": f"call{path}"})
    line = json.loads(await function.log_line(f"from a {path[1:]}"))
    assert line["call_id"] == f"call{path}"


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a\tb", 'a"b', "<script>", "a;b"])
async def test_call_id_that_is_unfit_is_replaced(function: Process, given: str) -> None:
    """An id from outside is checked before it is used or logged; the caller learns the new one."""
    answer = await call(function.port, "/levels", headers={"X-Call-Id": given})
    new = answer.header("x-call-id") or ""
    assert new != given
    assert len(new) == 36
    await function.log_line(new)


async def test_access_line_tells_the_call_without_its_query(function: Process) -> None:
    """Method, path, status and duration; a query may hold secrets."""
    await call(function.port, "/nowhere/else?key=hidden-in-the-query")
    line = json.loads(await function.log_line("/nowhere/else"))
    assert (line["method"], line["path"], line["status"]) == ("GET", "/nowhere/else", 404)
    assert line["duration_seconds"] >= 0
    assert "hidden-in-the-query" not in function.output()


async def test_probes_leave_no_line(function: Process) -> None:
    """The kubelet's questions every two seconds would drown the rest."""
    await call(function.port, "/_/health")
    await call(function.port, "/_/ready")
    await call(function.port, "/levels?after=probes")
    assert "/_/" not in function.output()


async def test_fields_of_the_call_become_members(function: Process) -> None:
    """``extra=`` stays structured."""
    line = await written(function, "paid", order={"id": 7, "lines": [1, 2]}, paid=True)
    assert (line["order"], line["paid"]) == ({"id": 7, "lines": [1, 2]}, True)


async def test_numbers_that_json_has_not_are_text(function: Process) -> None:
    """A line with a bare NaN is no JSON and would be dropped by what reads it."""
    await call(function.port, "/numbers")
    text = await function.log_line("odd numbers")
    line = json.loads(text, parse_constant=lambda name: pytest.fail(f"a bare {name}"))
    assert line["odd"] == {"ratio": "NaN", "sides": ["Infinity", "-Infinity", 0.5], "huge": hex(1 << 20_000)}


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        ("login", {"password": "canary-1"}),
        ("login", {"user": {"api_key": "canary-1", "name": "Ada"}}),
        ("login", {"iban": "canary-1"}),
        ("login", {"headers": [{"Authorization": "Bearer canary-1"}]}),
        ("Authorization: Bearer canary-1", {}),
        ("redis://:canary-1@cache:6379/0 is away", {}),
        ("password=canary-1 user=ada", {}),
        ('{"token": "canary-1"}', {}),
    ],
)
async def test_secrets_are_masked(function: Process, message: str, fields: dict[str, Any]) -> None:
    """By the names of fields, the settings' own names among them, and by shapes in text."""
    line = await written(function, message, **fields)
    assert "canary-1" not in json.dumps(line)
    assert "***" in json.dumps(line)


async def test_contents_of_secret_files_are_masked(tmp_path: Path) -> None:
    """Whatever stands in a secret appears in no line, however it got there."""
    (tmp_path / "db").write_text("s3cr3t-of-the-db\n")
    async with run_function(HANDLER, FAAS_SECRETS_DIR=str(tmp_path)) as function:
        line = await written(function, "connecting as app:s3cr3t-of-the-db", note=["s3cr3t-of-the-db"])
        assert "s3cr3t" not in json.dumps(line)


async def test_line_of_700_kilobytes_hangs_nothing(function: Process) -> None:
    """It arrives whole, and calls go on."""
    await call(function.port, "/long")
    assert (await call(function.port, "/levels")).status == 200
    assert "x" * 700_000 in await function.log_line("x" * 700_000)


async def test_log_level_is_taken() -> None:
    """``LOG_LEVEL`` is the least level that is written, the lines of calls included."""
    async with run_function(HANDLER, LOG_LEVEL="error") as quiet:
        # What the first call leaves is written before the second is answered.
        await call(quiet.port, "/levels")
        await call(quiet.port, "/nowhere")
        assert [line["message"] for line in quiet.logs()] == ["at error"]

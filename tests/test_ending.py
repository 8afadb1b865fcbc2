"""Whatever hangs, the process ends in time: before SIGKILL would, with its last line written."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from tests.child import Process
from tests.processes import run_function
from tests.wire import call

pytestmark = pytest.mark.anyio

SLEEPERS = """
import asyncio
import time

from fastapi import APIRouter, BackgroundTasks

router = APIRouter()
done = []


@router.get("/thread")
def thread() -> None:
    time.sleep(60)


@router.get("/to-thread")
async def to_thread() -> None:
    asyncio.get_running_loop().run_in_executor(None, time.sleep, 60)


@router.get("/background")
async def background(tasks: BackgroundTasks) -> str:
    tasks.add_task(later)
    return "accepted"


async def later() -> None:
    await asyncio.sleep(1.5)
    done.append("later")


@router.get("/done")
async def what_is_done() -> list[str]:
    return done


@router.get("/raises/{kind}")
async def raises(kind: str) -> None:
    raise {"cancelled": asyncio.CancelledError, "exit": SystemExit}[kind]()
"""
HANGING_READY = """
import time

from faasbase import StoreDep


async def handle(store: StoreDep) -> str:
    return (await store.put(b"x" * 100_000)).key


def ready() -> bool:
    time.sleep(60)
    return True
"""
HANGING_LIFESPAN = """
import asyncio
from contextlib import asynccontextmanager


@asynccontextmanager
async def lifespan(app):
    await asyncio.sleep(60)
    yield


async def handle() -> str:
    return ""
"""
HANGING_IMPORT = "import time\ntime.sleep(60)\n"


async def _exit_seconds(function: Process, number: signal.Signals) -> float:
    began = time.monotonic()
    function.send_signal(number)
    await function.exited()
    return time.monotonic() - began


@pytest.mark.parametrize("path", ["/thread", "/to-thread"])
async def test_threads_that_never_end_do_not_keep_the_process(path: str) -> None:
    """A `def` handler in the pool, and work that a handler left in asyncio's own threads."""
    async with run_function(SLEEPERS, write_timeout="1s", termination_grace_period="6s") as function:
        calling = asyncio.ensure_future(call(function.port, path))
        await asyncio.sleep(0.3)
        assert await _exit_seconds(function, signal.SIGTERM) < 5.0
        assert function.status == 0
        await asyncio.gather(calling, return_exceptions=True)


@pytest.mark.parametrize("source", [HANGING_LIFESPAN, HANGING_IMPORT], ids=["lifespan", "import"])
async def test_start_that_hangs_is_ended_by_a_signal(source: str) -> None:
    """SIGTERM within the window and what is kept for the end, Ctrl-C at once."""
    async with run_function(source, termination_grace_period="4s") as function:
        assert await _exit_seconds(function, signal.SIGTERM) < 3.0
        assert function.status == 1
        assert "it had not started" in function.output()
    async with run_function(source) as function:
        assert await _exit_seconds(function, signal.SIGINT) < 1.0


async def test_ready_that_hangs_takes_no_thread_from_others() -> None:
    """It is asked once at a time; the store goes on working, and the process ends."""
    async with run_function(HANGING_READY) as function:
        probes = [call(function.port, "/_/ready", timeout_seconds=5) for _ in range(8)]
        assert {answer.status for answer in await asyncio.gather(*probes)} == {503}
        assert (await call(function.port)).status == 200
        assert await _exit_seconds(function, signal.SIGTERM) < 5.0


async def test_background_work_outlives_the_limit_of_its_answer() -> None:
    """`exec_timeout` is for the answer; what goes on behind it is not part of the answer's duration either."""
    async with run_function(SLEEPERS, exec_timeout="500ms") as function:
        assert (await call(function.port, "/background")).status == 200
        await asyncio.sleep(2.0)
        assert (await call(function.port, "/done")).body == b'["later"]'
        line = next(line for line in function.logs() if line.get("path") == "/background")
        assert line["duration_seconds"] < 0.5


@pytest.mark.parametrize("kind", ["cancelled", "exit"])
async def test_whatever_a_handler_raises_is_a_problem_with_an_id(kind: str) -> None:
    """A CancelledError of its own, or SystemExit, is a crash like any other, and the process goes on."""
    async with run_function(SLEEPERS) as function:
        answer = await call(function.port, f"/raises/{kind}", headers={"X-Call-Id": "call-9"})
        assert (answer.status, answer.header("content-type")) == (500, "application/problem+json")
        assert b"call-9" in answer.body
        assert any(line.get("call_id") == "call-9" and line["level"] == "error" for line in function.logs())
        assert (await call(function.port, "/done")).status == 200


async def test_start_after_a_kill_says_so(tmp_path: Path) -> None:
    """A pod keeps its /tmp when the kernel kills its container; the next log begins with why calls were lost."""
    handler = "async def handle() -> None: ...\n"
    async with run_function(handler, TMPDIR=str(tmp_path)) as function:
        await function.ready()
        assert "was killed" not in function.output()
        function.send_signal(signal.SIGKILL)
        await function.exited()
    async with run_function(handler, TMPDIR=str(tmp_path)) as function:
        line = await function.json_line(lambda line: "was killed" in line["message"])
        assert (line["level"], line["logger"]) == ("warning", "faasbase")
        await function.ready()
        function.send_signal(signal.SIGTERM)
        assert await function.exited() == 0
    async with run_function(handler, TMPDIR=str(tmp_path)) as function:
        await function.ready()
        assert "was killed" not in function.output()

"""The life of functions in the embedded OpenFaaS: changed, broken, crashed, and ended with nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import closing, suppress
from pathlib import Path

import anyio
import anyio.abc
import pytest

from tests.local_up import local_module, make_project, processes_below, run_up, up, wait_until, write_handler
from tests.wire import Answer, WireError, call

pytestmark = pytest.mark.anyio

VERSION = """
import asyncio

async def handle(seconds: float = 0) -> str:
    await asyncio.sleep(seconds)
    return "version {version}"
"""
FRAGILE = """
import logging
import os
import signal
import subprocess
import sys
import threading
from fastapi import APIRouter

router = APIRouter()

@router.get("/")
async def pid() -> int:
    return os.getpid()

@router.get("/die")
async def die() -> None:
    print("these are my last words", flush=True)
    logging.getLogger(__name__).critical("what another caller sent")
    os._exit(3)

@router.get("/die-in-a-thread")
async def die_in_a_thread() -> None:
    thread = threading.Thread(target=lambda: {}["nothing"])
    thread.start()
    thread.join()
    os.kill(os.getpid(), signal.SIGKILL)

@router.get("/child")
async def child() -> int:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid

@router.get("/long-line")
async def long_line() -> str:
    print("x" * 700_000 + "END", flush=True)
    return "printed"
"""
BROKEN = "raise RuntimeError('this handler is broken')\n"
NEEDS_A_SERVER = """
from pathlib import Path

with Path({attempts!r}).open("a") as attempts:
    attempts.write("x")
if not Path({server!r}).exists():
    raise OSError("the server is not there")
print("found the server", flush=True)

async def handle() -> str:
    return "served"
"""


class Caller:
    """Calls a function again and again, and remembers what it was answered."""

    def __init__(self, port: int, path: str) -> None:
        self._port = port
        self._path = path
        self.answers: list[Answer] = []

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Call until cancelled."""
        while True:
            self.answers.append(await call(self._port, self._path))
            if len(self.answers) == 1:
                task_status.started()

    def texts(self) -> list[str]:
        """Return the different answers in the order of their first coming."""
        return list(dict.fromkeys(answer.text.strip('"') for answer in self.answers))


async def test_change_of_code_replaces_the_process_without_a_failed_call(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"fn": VERSION.format(version=1)})
    with up(project) as local:
        callers = [Caller(local.port, f"/function/fn?seconds={seconds}") for seconds in (0, 0.05, 0.7)]
        async with anyio.create_task_group() as calling:
            for caller in callers:
                await calling.start(caller.run)
            for version in (2, 3):
                write_handler(project, "fn", VERSION.format(version=version))
                await local.says("fn: replaced", times=version - 1)
            await anyio.sleep(1.8)
            calling.cancel_scope.cancel()
        for caller in callers:
            assert {answer.status for answer in caller.answers} == {200}
            assert caller.texts() == ["version 1", "version 2", "version 3"]
        await anyio.to_thread.run_sync(lambda: wait_until(lambda: len(processes_below(project / "build")) == 1, "one"))


async def test_change_that_does_not_start_leaves_the_old_process_serving(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"fn": VERSION.format(version=1)})
    with up(project) as local:
        write_handler(project, "fn", BROKEN)
        await local.says("fn: the change does not start; THE OLD CODE GOES ON")
        assert "fn/handler.py:1: RuntimeError: this handler is broken" in local.output()
        assert (await call(local.port, "/function/fn")).text == '"version 1"'
        described = (await call(local.port, "/system/function/fn")).json()
        assert described["availableReplicas"] == 1
        error = described["annotations"]["local/error"]
        assert "the old code goes on" in error
        assert "this handler is broken" in error
        # The next change is told of again, though it is broken in the same way.
        write_handler(project, "fn", BROKEN + "# not yet\n")
        await local.says("fn: the change does not start; THE OLD CODE GOES ON", times=2)
        write_handler(project, "fn", VERSION.format(version=2))
        await local.says("fn: replaced")
        assert (await call(local.port, "/function/fn")).text == '"version 2"'
        described = (await call(local.port, "/system/function/fn")).json()
        assert "local/error" not in described["annotations"]


async def test_broken_handler_is_answered_with_its_error_until_it_is_mended(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"fn": BROKEN, "other": VERSION.format(version=1)})
    with up(project) as local:
        answer = await call(local.port, "/function/fn")
        assert answer.status == 503
        assert answer.header("Content-Type") == "application/problem+json"
        assert answer.header("X-OpenFaaS-Internal") == "proxy"
        assert int(answer.header("Retry-After") or 0) >= 1
        assert "start failed" in answer.json()["detail"]
        assert "this handler is broken" in answer.json()["detail"]
        assert answer.json()["call_id"] == answer.header("X-Call-Id")
        assert (await call(local.port, "/function/other")).status == 200
        write_handler(project, "fn", VERSION.format(version=2))
        await local.says("fn: ready")
        assert (await call(local.port, "/function/fn")).status == 200


async def test_function_that_crashes_is_reported_and_started_again(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"fn": FRAGILE})
    with up(project) as local:
        first = (await call(local.port, "/function/fn")).text
        assert (await call(local.port, "/function/fn/die")).status == 502
        await local.says("fn: crashed, starts again in 0.5 s")
        assert "exit status 3" in local.output()
        assert local.output().count("these are my last words") == 1
        await local.says("fn: ready", times=2)
        assert (await call(local.port, "/function/fn")).text != first
        # The second crash in a row waits longer, and the caller is told how long.
        await call(local.port, "/function/fn/die")
        await local.says("starts again in 1.0 s")
        refused = await call(local.port, "/function/fn")
        assert (refused.status, refused.header("Retry-After")) == (503, "1")
        # The log is for whoever runs the function, and not for its callers.
        assert refused.json()["detail"] == "fn is not running: the process ended: exit status 3"
        await local.says("fn: ready", times=3)
        with suppress(WireError):
            await call(local.port, "/function/fn/die-in-a-thread")
        await local.says("the process ended: ended by SIGKILL\n  KeyError: 'nothing' (fn/handler.py:")


async def test_start_that_fails_is_told_once_and_tried_again_quietly(tmp_path: Path) -> None:
    attempts, server = tmp_path / "attempts", tmp_path / "server"
    handler = NEEDS_A_SERVER.format(attempts=str(attempts), server=str(server))
    project = make_project(tmp_path, {"fn": handler})
    with up(project) as local:
        await anyio.to_thread.run_sync(lambda: wait_until(lambda: len(attempts.read_text()) == 3, "tried", 12))
        assert local.output().count("does not start; waiting for a change of its code") == 1
        assert local.output().count("OSError: the server is not there") == 1
        server.touch()
        await local.says("fn: ready")
        assert (await call(local.port, "/function/fn")).text == '"served"'
        # What the process wrote before it was ready is shown when it is.
        assert "fn | found the server" in local.output()
        kept = (await call(local.port, "/system/logs?name=fn")).text
        assert kept.count("the server is not there") >= 3


async def test_long_line_of_output_hangs_nothing(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"fn": FRAGILE})
    with up(project) as local:
        assert (await call(local.port, "/function/fn/long-line")).text == '"printed"'
        await local.says("xxxEND")
        assert (await call(local.port, "/function/fn")).status == 200
        logs = (await call(local.port, "/system/logs?name=fn")).text
        assert "END" not in logs
        assert len(logs) < 20_000


async def test_interrupt_lets_calls_in_flight_finish_and_leaves_no_process(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"fn": VERSION.format(version=1), "other": FRAGILE})
    with up(project) as local:
        await call(local.port, "/function/other/child")
        caller = Caller(local.port, "/function/fn?seconds=1.5")
        async with anyio.create_task_group() as calling:
            calling.start_soon(_one_call, caller, local.port)
            await anyio.sleep(0.5)
            assert len(processes_below(project / "build")) == 3
            local.send_signal(signal.SIGINT)
        assert [answer.text for answer in caller.answers] == ['"version 1"']
        assert await anyio.to_thread.run_sync(local.wait) == 0
        assert processes_below(project) == []
        assert not any((project / "build/.local/run/fn").iterdir())


async def _one_call(caller: Caller, port: int) -> None:
    caller.answers.append(await call(port, "/function/fn?seconds=1.5"))


async def test_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"fn": VERSION.format(version=1)})
    with up(project) as local:
        port = local.port
        async with anyio.create_task_group() as calling:
            calling.start_soon(_lost_call, port)
            await anyio.sleep(0.3)
            local.send_signal(signal.SIGTERM)
            await local.says("stopping")
            local.send_signal(signal.SIGTERM)
            with anyio.fail_after(5):
                assert await anyio.to_thread.run_sync(local.wait) == 0
        assert processes_below(project) == []


async def _lost_call(port: int) -> None:
    # Answered by the gateway, or by nobody: it depends on which of the two ends first.
    with suppress(WireError, ConnectionError):
        assert (await call(port, "/function/fn?seconds=15", timeout_seconds=30)).status >= 500


async def test_functions_end_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"fn": FRAGILE})
    with up(project) as local:
        await call(local.port, "/function/fn/child")
        assert len(processes_below(project / "build")) == 2
        local.send_signal(signal.SIGKILL)
        await anyio.to_thread.run_sync(local.wait)
        await anyio.to_thread.run_sync(lambda: wait_until(lambda: not processes_below(project), "all ended"))


def test_taken_port_is_said_with_a_way_out(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"fn": VERSION.format(version=1)})
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        ended = run_up(project, "--port", str(port))
    assert ended.returncode == 1
    assert f"port {port} is taken" in ended.stderr
    assert "--port" in ended.stderr
    assert "make up PORT=" in ended.stderr


@pytest.mark.parametrize("port", ["abc", "80000", "-1", "8" * 5000])
def test_port_that_is_none_is_refused_with_the_range(tmp_path: Path, port: str) -> None:
    ended = run_up(make_project(tmp_path, {}), f"--port={port}")
    assert ended.returncode == 2
    assert "a port is a number from 0 to 65535" in ended.stderr


def test_folder_without_a_stack_file_is_told_what_to_do(tmp_path: Path) -> None:
    project = make_project(tmp_path, {})
    (project / "stack.yml").unlink()
    ended = run_up(project, "--port", "0")
    assert ended.returncode == 1
    assert "faas-cli new --lang python-fastapi" in ended.stderr


def test_function_of_another_template_is_left_out(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"fn": VERSION.format(version=1), "js": ""})
    stack = project / "stack.yml"
    text = stack.read_text()
    stack.write_text(text[::-1].replace("python-fastapi"[::-1], "node22"[::-1], 1)[::-1])
    with up(project) as local:
        assert "js: left out, its lang node22 is not python-fastapi" in local.output()
        assert "fn: ready" in local.output()


async def test_pinned_template_runs_its_functions(tmp_path: Path) -> None:
    handlers = {"fn": VERSION.format(version=1), "other": VERSION.format(version=2)}
    project = make_project(tmp_path, handlers, lang="python-fastapi@0.1.0")
    with up(project, "fn") as local:
        assert (await call(local.port, "/function/fn")).text == '"version 1"'
        # Only the named function was asked for.
        assert (await call(local.port, "/function/other")).status == 404


async def test_settings_of_the_shell_reach_the_function_and_the_stack_file_wins(tmp_path: Path) -> None:
    names = ["CACHE_URL", "STORAGE_URL", "LOG_LEVEL", "OPENFAAS_NAME", "gateway_url", "upstream_url"]
    handler = (
        "import os\n\nasync def handle() -> dict[str, str]:\n"
        f"    return {{name: os.environ.get(name, '') for name in {names}}}\n"
    )
    project = make_project(tmp_path, {"fn": handler}, more="environment:\n  LOG_LEVEL: WARNING\n")
    shell = {"CACHE_URL": "memory://?max_entries=7", "LOG_LEVEL": "ERROR", "upstream_url": "http://127.0.0.1:1"}
    with up(project, **shell) as local:
        seen = (await call(local.port, "/function/fn")).json()
        assert seen["CACHE_URL"] == "memory://?max_entries=7"
        assert seen["LOG_LEVEL"] == "WARNING"
        assert seen["STORAGE_URL"] == (project.resolve() / "build/.local/objects/fn").as_uri()
        assert (seen["OPENFAAS_NAME"], seen["upstream_url"]) == ("fn", "")
        assert seen["gateway_url"] == local.url


@pytest.mark.parametrize(
    ("shell", "stack", "place"),
    [
        ("", "", "memory://"),
        ("redis://127.0.0.1:1", "", ""),
        ("", "redis://127.0.0.1:1", ""),
        ("redis://127.0.0.1:1", "memory://", "memory://"),
    ],
)
def test_records_are_in_memory_unless_the_cache_is_redis(
    monkeypatch: pytest.MonkeyPatch, shell: str, stack: str, place: str
) -> None:
    monkeypatch.setenv("CACHE_URL", shell)
    function = local_module("stackfile", monkeypatch).Function(
        "fn", "python-fastapi", Path("fn"), "fn", environment={"CACHE_URL": stack} if stack else {}
    )
    records = local_module("launching", monkeypatch)._records(function)
    assert records.get("IDEMPOTENCY_URL", "") == place


async def test_extra_copied_paths_and_template_samples_are_staged(tmp_path: Path) -> None:
    handler = "from .shared.words import WORD\n\nasync def handle() -> str:\n    return WORD\n"
    project = make_project(tmp_path, {"fn": handler})
    (project / "shared").mkdir()
    (project / "shared" / "words.py").write_text("WORD = 'shared'\n")
    with (project / "stack.yml").open("a") as stack:
        stack.write("configuration:\n  copy:\n    - ./shared\n")
    with up(project) as local:
        assert (await call(local.port, "/function/fn")).text == '"shared"'


async def test_hidden_files_are_staged_and_leftovers_of_editors_start_nothing(tmp_path: Path) -> None:
    handler = (
        "from pathlib import Path\n\nasync def handle() -> str:\n"
        "    return Path(__file__).with_name('.words').read_text()\n"
    )
    project = make_project(tmp_path, {"fn": handler})
    (project / "fn" / ".words").write_text("hidden")
    with up(project) as local:
        for name in (".handler.py.swp", "handler.py~", "__pycache__/x.pyc", ".venv/x.py", "build/x.py"):
            (project / "fn" / name).parent.mkdir(exist_ok=True)
            (project / "fn" / name).write_text("")
        await anyio.sleep(1.6)
        assert "replaced" not in local.output()
        assert (await call(local.port, "/function/fn")).text == '"hidden"'
        (project / "fn" / ".words").write_text("changed")
        await local.says("fn: replaced")
        assert (await call(local.port, "/function/fn")).text == '"changed"'


async def test_changed_stack_file_is_said_to_need_a_start(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"fn": VERSION.format(version=1)})
    with up(project) as local:
        (project / "stack.yml").touch()
        await local.says("stack.yml has changed: start again to have it read")


def test_processes_below_a_folder_are_found() -> None:
    assert os.getpid() in processes_below(Path.cwd())

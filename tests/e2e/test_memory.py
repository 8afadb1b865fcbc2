"""Memory: a function that takes more than its limit is killed and comes back, and the samples stay within theirs."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from collections import Counter
from collections.abc import Callable

import httpx2
import pytest

from deploy.images.engine import Engine
from deploy.images.project import functions
from tests.e2e.conftest import Build
from tests.e2e.containers import PORT, Container, State, run_container
from tests.test_image_pool import large, padded, poster
from tests.wire import Answer, WireError, call

pytestmark = pytest.mark.anyio

LIMITS = {"memory": "128Mi", "cpu": "1000m"}
KILLED = 137
"""128 and the number of SIGKILL."""
END_SECONDS = 20.0
CALL_SECONDS = 90.0
# This is about memory; how long it takes is the matter of the machine.
PATIENCE = {"IMAGE_WAIT": "60s", "exec_timeout": "80s", "write_timeout": "81s", "termination_grace_period": "90s"}
WARNING = "the process before this one was killed"
HOARD = """
hoard: list[bytes] = []


async def handle(mebibytes: int = 0) -> int:
    for _ in range(mebibytes):
        hoard.append(b"x" * (1 << 20))
    return len(hoard)
"""


async def take(container: Container, mebibytes: int) -> Answer | None:
    """Have the function take memory; None where the connection is closed without an answer."""
    try:
        return await call(PORT, f"/?mebibytes={mebibytes}", host=container.address)
    except (WireError, ConnectionError):
        return None


def warnings(container: Container) -> list[str]:
    """Return what it has logged as a warning about the process before."""
    messages = [line["message"] for line in container.logs() if line["level"] == "warning"]
    return [message for message in messages if message.startswith(WARNING)]


async def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for *condition*, with a deadline."""
    deadline = time.monotonic() + END_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} has not come"
        await asyncio.sleep(0.1)


def ran_out_of_memory(container: Container) -> bool:
    """Ask the engine, and the kernel's log where an older engine on cgroup v1 does not see it."""
    kernel = subprocess.run(["dmesg"], capture_output=True, text=True, timeout=10, check=False).stdout
    cgroup = re.escape(container.engine.inspect(container.name)["Id"])
    return container.state().oom_killed or bool(re.search(f"oom_memcg=.*{cgroup}", kernel))


async def test_call_that_takes_too_much_memory_ends_the_container(engine: Engine, build: Build) -> None:
    """The caller's connection is closed, the engine says why, and the lock file stays behind in ``/tmp``."""
    with run_container(engine, build(HOARD, "hoard"), limits=LIMITS) as container:
        container.wait_ready()
        modest = await take(container, 16)
        assert (modest and modest.json()) == 16
        assert await take(container, 256) is None
        await until(lambda: not container.state().running, "the end")
        assert container.state().exit_code == KILLED
        assert ran_out_of_memory(container)
        assert (container.tmp / ".lock").exists()


async def test_killed_function_comes_back_in_the_same_tmp(engine: Engine, build: Build) -> None:
    """The engine starts it again, as Kubernetes does; it answers, and its log says what became of the one before."""
    with run_container(engine, build(HOARD, "hoard"), limits=LIMITS, restart=True) as container:
        container.wait_ready()
        (container.tmp / "kept").touch()
        assert warnings(container) == []
        assert await take(container, 256) is None
        await until(lambda: container.state().restarts == 1, "the restart")
        container.wait_ready()
        assert (container.tmp / "kept").exists()
        again = await take(container, 16)
        assert (again and again.json()) == 16
        assert len(warnings(container)) == 1


async def test_function_that_was_stopped_says_nothing_of_a_kill(engine: Engine, build: Build) -> None:
    """The same container, started again after a good end."""
    env = {"healthcheck_interval": "100ms"}
    with run_container(engine, build(HOARD, "hoard"), limits=LIMITS, env=env) as container:
        container.wait_ready()
        assert container.stop() == 0
        engine.run("start", container.name)
        container.wait_ready()
        assert [line["message"] for line in container.logs()].count(f"serving on port {PORT}") == 2
        assert warnings(container) == []


async def test_largest_images_at_once_stay_within_the_stack_files_memory(
    engine: Engine, build: Build, record_property: Callable[[str, object], None]
) -> None:
    """Two images that take most, and large uploads beside them: some are told to come again, nothing is killed."""
    function = next(function for function in functions() if function.name == "image-processor")
    posters = [await asyncio.to_thread(poster, number) for number in range(2)]
    image = build(function.handler, function.name)
    env = {**(function.environment or {}), **PATIENCE}
    with run_container(engine, image, limits=function.limits, env=env) as container:
        container.wait_ready()
        async with httpx2.AsyncClient(timeout=CALL_SECONDS) as http:
            statuses = await burst(http, container, posters)
        peak = int(container.exec("grep", "VmHWM", "/proc/1/status").split()[1]) // 1024
        assert container.state() == State(running=True, exit_code=0, oom_killed=False, restarts=0)
    record_property("measured", f"image-processor: {peak} MiB at most in a burst answered with {dict(statuses)}")


async def burst(http: httpx2.AsyncClient, container: Container, posters: list[bytes]) -> Counter[int]:
    """Post *posters* and, while these are worked on, six large images; *posters* are answered, the others may wait."""
    url = container.url
    async with asyncio.TaskGroup() as calls:
        params = {"op": "blur:1", "format": "png"}
        worst = [calls.create_task(http.post(url, params=params, content=body)) for body in posters]
        await until(lambda: in_flight(container) == len(posters), "the start of the work")
        others = [calls.create_task(http.post(url, content=padded(large(number)))) for number in range(6)]
    assert {call.result().status_code for call in worst} == {200}
    assert {call.result().status_code for call in others} <= {200, 429}
    return Counter(call.result().status_code for call in (*worst, *others))


def in_flight(container: Container) -> int:
    """Return how many calls it is answering."""
    metrics = httpx2.get(container.metrics_url, timeout=CALL_SECONDS).text
    found = re.search(r"^http_requests_in_flight (\d+)", metrics, re.MULTILINE)
    return int(found[1]) if found else 0

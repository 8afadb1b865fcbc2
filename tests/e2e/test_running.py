"""Every function of the stack file, and a new one, run as Kubernetes runs them."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest

from deploy.images.engine import Engine
from deploy.images.pods import USER
from deploy.images.project import TEMPLATE, Function, additional_packages, functions
from tests.e2e.conftest import Build
from tests.e2e.containers import METRICS_PORT, PORT, Container, run_container
from tests.pictures import encoded, photo
from tests.wire import Answer, call

pytestmark = pytest.mark.anyio

NEW = Function("hello", TEMPLATE / "function", "", {}, limits={"cpu": "500m", "memory": "128Mi"})
"""What ``faas-cli new`` hands out."""
FUNCTIONS = (NEW, *functions())
GRACE_SECONDS = 30.0

# Runs in the container: names each folder and file outside of the kernel's own in which something can be written.
FIND_WRITABLE = """
import os, pathlib
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in ("/proc", "/sys")]
    try:
        (probe := pathlib.Path(folder, "probe")).touch()
        probe.unlink()
        print(folder)
    except OSError:
        pass
    for path in (pathlib.Path(folder, name) for name in files):
        if path.is_file() and os.access(path, os.W_OK):
            print(path)
"""
EVERY_CONTAINERS = ("/tmp", "/dev/shm", "/dev/mqueue")
"""What is writable in each container of Kubernetes, and /tmp, which the chart mounts."""


@dataclass(frozen=True)
class Deployed:
    """A function and the container that it runs in."""

    function: Function
    container: Container

    async def call(self, path: str, body: bytes = b"", *, port: int = PORT, kind: str = "application/json") -> Answer:
        """Call it, with POST where there is a *body*."""
        method = "POST" if body else "GET"
        headers = {"Content-Type": kind} if body else {}
        host = self.container.address
        return await call(port, path, host=host, method=method, headers=headers, body=body)


Check = Callable[[Deployed], Awaitable[None]]


async def greets(deployed: Deployed) -> None:
    """Typed JSON goes in and out, and what is not of the type is a problem that names the field."""
    answer = await deployed.call("/", b'{"name": "Ada"}')
    assert (answer.status, answer.json()) == (200, {"message": "Hello, Ada!"})
    refused = await deployed.call("/", b'{"name": 3}')
    assert (refused.status, refused.header("content-type")) == (422, "application/problem+json")
    assert "name" in json.dumps(refused.json()["errors"])


async def resizes(deployed: Deployed) -> None:
    """An image comes back smaller; its link is served from ``/tmp``, the one place that it may write."""
    answer = await deployed.call("/?op=resize:20x15", encoded(photo(40, 30), "JPEG"), kind="image/jpeg")
    assert answer.status == 200, answer
    assert (answer.json()["width"], answer.json()["height"]) == (20, 15)
    link = urlsplit(answer.json()["processed_url"])
    path = link.path.removeprefix(f"/function/{deployed.function.name}")
    stored = await deployed.call(f"{path}?{link.query}")
    assert (stored.status, stored.body[:2]) == (200, b"\xff\xd8")


CALLS: Mapping[str, Check] = {"hello": greets, "image-processor": resizes}


def run(engine: Engine, build: Build, function: Function) -> AbstractContextManager[Container]:
    """Build *function* on the shared base and run it as the stack file deploys it."""
    packages = additional_packages(function)
    image = build(function.handler, function.name, **{**function.build_args, "ADDITIONAL_PACKAGE": packages})
    # faas-cli sends the template's fprocess along, and the name of a pod ends as a ReplicaSet makes it.
    env = {"fprocess": "python index.py", **(function.environment or {})}
    pod = f"{function.name}-6d4f9c7b8-x2k5p"
    return run_container(engine, image, limits=function.limits, env=env, options=("--hostname", pod))


@pytest.fixture(scope="module", params=FUNCTIONS, ids=lambda function: function.name)
def deployed(request: pytest.FixtureRequest, engine: Engine, build: Build) -> Iterator[Deployed]:
    """Run each function in turn, healthy."""
    function: Function = request.param
    with run(engine, build, function) as container:
        container.wait_healthy()
        yield Deployed(function, container)


async def test_it_is_healthy_gets_ready_and_answers(deployed: Deployed) -> None:
    """Real calls on 8080."""
    assert (await deployed.call("/_/health")).text == "OK"
    deployed.container.wait_ready()
    await CALLS[deployed.function.name](deployed)


async def test_metrics_are_of_watchdogs_on_a_port_of_their_own(deployed: Deployed) -> None:
    """Names and labels, so that its dashboards go on; none of it on 8080."""
    before = await counted(deployed)
    await CALLS[deployed.function.name](deployed)
    metrics = (await deployed.call("/metrics", port=METRICS_PORT)).text
    assert await counted(deployed) == before + 1
    assert re.search(r'^http_request_duration_seconds_count\{code="200",method="post"\} \d', metrics, re.MULTILINE)
    assert re.search(r"^http_requests_in_flight 0(\.0)?$", metrics, re.MULTILINE)
    assert "http_requests_total" not in (await deployed.call("/metrics")).text


async def counted(deployed: Deployed) -> float:
    """Return how many calls were posted and answered with 200, by the metrics."""
    metrics = (await deployed.call("/metrics", port=METRICS_PORT)).text
    found = re.search(r'^http_requests_total\{code="200",method="post"\} (\S+)$', metrics, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def test_each_line_of_the_log_is_json(deployed: Deployed) -> None:
    """With the function's name, taken from the pod's, and one line a call."""
    await CALLS[deployed.function.name](deployed)
    lines = deployed.container.logs()
    assert {line["function"] for line in lines} == {deployed.function.name}
    assert any(line["logger"] == "faasbase.access" and line["status"] == 200 for line in lines)
    assert deployed.container.output().count("\n") == len(lines), "stderr says something too"


def test_it_is_user_12000_with_no_capability(deployed: Deployed) -> None:
    """Asked of the kernel."""
    status = dict(re.findall(r"^(\w+):\s*(.*)$", deployed.container.exec("cat", "/proc/1/status"), re.MULTILINE))
    assert status["Uid"].split() == status["Gid"].split() == [str(USER)] * 4
    assert {name: int(value, 16) for name, value in status.items() if name.startswith("Cap") and int(value, 16)} == {}
    assert status["NoNewPrivs"] == "1"


async def test_nothing_is_writable_but_tmp(deployed: Deployed) -> None:
    """Nor does anything wait there for a writable root: the function has done its work by now."""
    await CALLS[deployed.function.name](deployed)
    writable = deployed.container.exec("python", "-c", FIND_WRITABLE).split()
    assert "/tmp" in writable
    assert [path for path in writable if not path.startswith(EVERY_CONTAINERS)] == []


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
async def test_it_starts_soon_and_ends_well(
    function: Function, engine: Engine, build: Build, record_property: Callable[[str, object], None]
) -> None:
    """The first call is answered, whatever is still being imported; SIGTERM ends it with 0 within the pod's time."""
    with run(engine, build, function) as container:
        healthy = container.wait_healthy()
        await CALLS[function.name](Deployed(function, container))
        answered = time.monotonic() - container.started_at
        begin = time.monotonic()
        assert container.stop() == 0, container.tail()
        ended = time.monotonic() - begin
    assert ended < GRACE_SECONDS
    took = f"healthy after {healthy:.2f} s, first calls answered after {answered:.2f} s, stopped in {ended:.2f} s"
    record_property("measured", f"{function.name}: {took}")


def test_every_function_has_a_call() -> None:
    """A new sample must be called here too."""
    assert {function.name for function in FUNCTIONS} == set(CALLS)

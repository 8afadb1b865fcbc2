"""Every function of the stack file, and a new one, run as Kubernetes runs them."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping
from urllib.parse import urlsplit

import pytest

from deploy.images.engine import Engine
from deploy.images.pods import USER
from deploy.images.project import TEMPLATE, Function, functions
from tests.e2e.conftest import Build
from tests.e2e.containers import METRICS_PORT
from tests.e2e.deployed import OTHER_KEY, WEBHOOK, Deployed, deploy
from tests.pictures import encoded, photo

pytestmark = pytest.mark.anyio

NEW = Function("hello", TEMPLATE / "function", "", {}, limits={"cpu": "500m", "memory": "128Mi"})
"""What ``faas-cli new`` hands out."""
FUNCTIONS = (NEW, *functions())
GRACE_SECONDS = 30.0
JSON = {"Content-Type": "application/json"}
PEAR = {"sku": "pear", "quantity": 1}

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


Check = Callable[[Deployed], Awaitable[None]]


async def greets(deployed: Deployed) -> None:
    """Typed JSON goes in and out, and what is not of the type is a problem that names the field."""
    answer = await deployed.call("/", b'{"name": "Ada"}', headers=JSON)
    assert (answer.status, answer.json()) == (200, {"message": "Hello, Ada!"})
    refused = await deployed.call("/", b'{"name": 3}', headers=JSON)
    assert (refused.status, refused.header("content-type")) == (422, "application/problem+json")
    assert "name" in json.dumps(refused.json()["errors"])


async def resizes(deployed: Deployed) -> None:
    """An image comes back smaller; its link is served from ``/tmp``, the one place that it may write."""
    kind = {"Content-Type": "image/jpeg"}
    answer = await deployed.call("/?op=resize:20x15", encoded(photo(40, 30), "JPEG"), headers=kind)
    assert answer.status == 200, answer
    assert (answer.json()["width"], answer.json()["height"]) == (20, 15)
    link = urlsplit(answer.json()["processed_url"])
    path = link.path.removeprefix(f"/function/{deployed.function.name}")
    stored = await deployed.call(f"{path}?{link.query}")
    assert (stored.status, stored.body[:2]) == (200, b"\xff\xd8")


async def takes_orders(deployed: Deployed) -> None:
    """An order is accepted once the gateway has its event for order-worker, signed."""
    body = json.dumps({"customer": "ada@example.com", "lines": [PEAR]}).encode()
    answer = await deployed.call("/", body, headers={**JSON, "Idempotency-Key": uuid.uuid4().hex})
    assert answer.status == 202, answer
    sent = deployed.sent()
    assert (sent.path, sent.headers["ce-type"]) == ("/async-function/order-worker", "order.created")
    assert json.loads(sent.body)["id"] == answer.json()["order_id"]


async def reserves(deployed: Deployed) -> None:
    """A signed order takes from the stock, and the gateway has the outcome for notifier; a forged one does nothing."""
    before = int((await deployed.call("/stock/pear")).json())
    order = {"id": uuid.uuid4().hex, "customer": "ada@example.com", "lines": [PEAR]}
    assert (await deployed.push("order.created", order)).status == 204
    sent = deployed.sent()
    assert (sent.path, sent.headers["ce-type"]) == ("/async-function/notifier", "order.fulfilled")
    assert (await deployed.push("order.created", {**order, "id": "forged"}, OTHER_KEY)).status == 401
    assert int((await deployed.call("/stock/pear")).json()) == before - 1


async def notifies(deployed: Deployed) -> None:
    """What became of an order is told to the webhook."""
    outcome = {"order_id": uuid.uuid4().hex, "customer": "ada@example.com"}
    assert (await deployed.push("order.fulfilled", outcome)).status == 204
    last = deployed.gateway.taken[-1]
    assert (last.path, json.loads(last.body)["data"]["order_id"]) == (WEBHOOK, outcome["order_id"])


async def reports(deployed: Deployed) -> None:
    """The cron-connector's call has the day's report written, to ``/tmp``."""
    answer = await deployed.call("/", headers={"X-Topic": "cron-function", "X-Connector": "cron-connector"})
    assert answer.status == 204, answer
    (report,) = (deployed.container.tmp / "objects" / "reports").glob("*.json")
    assert set(json.loads(report.read_text())) == {"folders", "objects", "total_bytes"}


# Each has one call answered with success that is posted.
CALLS: Mapping[str, Check] = {
    "hello": greets,
    "image-processor": resizes,
    "order-intake": takes_orders,
    "order-worker": reserves,
    "notifier": notifies,
    "nightly": reports,
}


@pytest.fixture(scope="module", params=FUNCTIONS, ids=lambda function: function.name)
def deployed(request: pytest.FixtureRequest, engine: Engine, build: Build) -> Iterator[Deployed]:
    """Run each function in turn, healthy."""
    function: Function = request.param
    with deploy(engine, build, function) as deployed:
        deployed.container.wait_healthy()
        yield deployed


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
    assert re.search(r'^http_request_duration_seconds_count\{code="20\d",method="post"\} \d', metrics, re.MULTILINE)
    assert re.search(r"^http_requests_in_flight 0(\.0)?$", metrics, re.MULTILINE)
    assert "http_requests_total" not in (await deployed.call("/metrics")).text


async def counted(deployed: Deployed) -> float:
    """Return how many calls were posted and answered with success, by the metrics."""
    metrics = (await deployed.call("/metrics", port=METRICS_PORT)).text
    found = re.findall(r'^http_requests_total\{code="20\d",method="post"\} (\S+)$', metrics, re.MULTILINE)
    return sum(map(float, found))


async def test_each_line_of_the_log_is_json(deployed: Deployed) -> None:
    """With the function's name, taken from the pod's, and one line a call."""
    await CALLS[deployed.function.name](deployed)
    lines = deployed.container.logs()
    assert {line["function"] for line in lines} == {deployed.function.name}
    assert any(line["logger"] == "faasbase.access" and line["status"] in (200, 202, 204) for line in lines)
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
    with deploy(engine, build, function) as deployed:
        container = deployed.container
        healthy = container.wait_healthy()
        await CALLS[function.name](deployed)
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

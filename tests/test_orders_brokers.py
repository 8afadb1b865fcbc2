"""``make up BROKERS=1``: the functions of stack.yml beside the brokers that it starts, and what kcat sees there."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.brokers.__main__ import brokers
from tests.local_up import up
from tests.order_chain import NAMES, left, make_checkout, order, push, webhook
from tests.staging import FUNCTIONS

pytestmark = pytest.mark.anyio

KCAT = re.compile(r"^```sh\n(echo .*?)^```", re.MULTILINE | re.DOTALL)
BROKEN = json.dumps({"id": "o-2", "customer": "ada", "lines": []})


@pytest.fixture
def addresses(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Start the brokers as the command does, and give what it puts into the environment."""
    with brokers(tmp_path / "brokers") as addresses:
        yield addresses


def run_readme_commands(kafka_url: str) -> str:
    """Run what order-worker's README shows, an order written by kcat and the dead letters read."""
    found = KCAT.search((FUNCTIONS / "order-worker" / "README.md").read_text())
    assert found is not None
    env = {"BROKER": kafka_url.removeprefix("kafka://"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["bash", "-euc", found[1]], env=env, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout


def write_to_orders(kafka_url: str, content: str) -> None:
    """Write an order that says it is one."""
    told = [f"-Hce_{name}" for name in ("specversion=1.0", "id=o-2", "source=/s", "type=order.created")]
    command = ["kcat", "-b", kafka_url.removeprefix("kafka://"), "-t", "orders", "-P", *told]
    subprocess.run(command, input=content, text=True, timeout=20, check=True)


async def test_orders_go_over_kafka_and_nats(tmp_path: Path, addresses: dict[str, str]) -> None:
    """By nothing but the variables; what is no order is a dead letter, and nothing can be pushed."""
    project = make_checkout(tmp_path / "project")
    async with webhook(503) as hook:
        with up(project, *NAMES, WEBHOOK_URL=hook.url, EVENTS_RETRY_BASE="50ms", **addresses) as local:
            intake, worker = "/function/order-intake", "/function/order-worker"
            answer = await order(local.port, "k-1", {"apple": 2}, path=intake)
            [first] = await hook.notices()
            assert (await push(local.port, "o-1", path=worker)).status == 404
            run_readme_commands(addresses["KAFKA_URL"])
            by_kcat = (await hook.notices(2))[1]
            assert await left(local.port, "apple", path=worker) == 97
            write_to_orders(addresses["KAFKA_URL"], BROKEN)
            await local.says("is a dead letter after 1 attempt:")
            letters = run_readme_commands(addresses["KAFKA_URL"])
    assert (first.order_id, by_kcat.order_id) == (answer.json()["order_id"], "k-1")
    assert [notice.order_id for notice in hook.got].count(first.order_id) == 2, "the webhook was down the first time"
    assert BROKEN in letters
    assert "deadletter-error=ValidationError" in letters

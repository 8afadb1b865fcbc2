"""The same functions without brokers: by the queue of the embedded OpenFaaS, and closed to forged events elsewhere."""

from __future__ import annotations

import re
import subprocess
from functools import partial
from pathlib import Path

import pytest

from tests.kafka_orders import eventually
from tests.local_up import up, wait_until
from tests.order_chain import NAMES, left, make_checkout, order, push, sample, webhook
from tests.staging import FUNCTIONS
from tests.wire import call

pytestmark = pytest.mark.anyio

KEY = "whsec_c2VjcmV0LWNhbmFyeS1vZi1ldmVudHM="
OTHER_KEY = "whsec_YW5vdGhlci1zZWNyZXQtb2YtZXZlbnRz"
TRACE = f"{8:032x}"
ANSWERS = {
    "order-intake": "HTTP/1.1 202 Accepted",
    "order-worker": "98",
    "notifier": "HTTP/1.1 204 No Content",
    "nightly": "HTTP/1.1 204 No Content",
}
"""What the first command in each README is answered."""
README_COMMANDS = re.compile(r"^```sh\n(curl .*?)^```", re.MULTILINE | re.DOTALL)
UNSET = dict.fromkeys(
    ("REDIS_URL", "ORDERS_PUBLISH_URL", "ORDERS_EVENTS_URL", "OUTCOMES_PUBLISH_URL", "OUTCOMES_EVENTS_URL"), ""
)


@pytest.mark.parametrize("key", ["", KEY], ids=["without the secret", "signed"])
async def test_orders_go_by_the_queue_from_function_to_function(tmp_path: Path, key: str) -> None:
    """As `make up` starts them: nobody is asked for a secret, and who has it is believed alone."""
    project = make_checkout(tmp_path / "project")
    if key:
        (project / ".secrets").mkdir()
        (project / ".secrets" / "events-key").write_text(key)
    async with webhook() as hook:
        with up(project, *NAMES, WEBHOOK_URL=hook.url, **UNSET) as local:
            assert "missing" not in local.output()
            headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
            intake, worker = "/function/order-intake", "/function/order-worker"
            first = await order(local.port, "k-1", {"apple": 99}, path=intake, headers=headers)
            repeat = await order(local.port, "k-1", {"apple": 99}, path=intake)
            await hook.notices(1)
            second = await order(local.port, "k-2", {"apple": 2, "plum": 1}, path=intake)
            notices = await hook.notices(2)
            assert [await left(local.port, sku, path=worker) for sku in ("apple", "plum")] == [1, 100]
            assert (await push(local.port, "o-1", path=worker)).status == (401 if key else 204)
            # All that is under way ends first: the webhook answers nothing while this process waits for the others.
            assert len(await hook.notices(2 if key else 3)) == (2 if key else 3)
            assert "secret-canary" not in local.output()
            for what, answer in (("reserved", first), ("refused", second)):
                assert f"INFO {what} order_id={answer.json()['order_id']}" in local.output()
    assert (first.status, repeat.header("idempotency-replayed"), repeat.json()) == (202, "true", first.json())
    assert [(notice.type, notice.data["missing"]) for notice in notices] == [
        ("order.fulfilled", []),
        ("order.rejected", ["apple"]),
    ]
    assert notices[0].order_id == first.json()["order_id"]
    assert notices[0].headers["traceparent"].split("-")[1] == TRACE


def answered(command: str, answer: str) -> bool:
    """Run a command of a shell and tell whether what it prints begins with *answer*."""
    done = subprocess.run(["bash", "-euc", command], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.startswith(answer)


def test_commands_of_the_readmes_are_true(tmp_path: Path) -> None:
    """As they stand there, but for the gateway's port: an order is taken, and two apples are gone."""
    project = make_checkout(tmp_path / "project")
    with up(project, *ANSWERS, WEBHOOK_URL="", **UNSET) as local:
        for name, answer in ANSWERS.items():
            block = README_COMMANDS.search((FUNCTIONS / name / "README.md").read_text())
            assert block is not None
            command = block[1].replace("http://127.0.0.1:8080", local.url)
            wait_until(partial(answered, command, answer), f"{name} answering {answer}", 5.0)


async def test_order_that_is_not_valid_is_refused_before_anything_is_sent() -> None:
    """What is wrong is named; nobody is there to send it to."""
    async with sample("order-intake", PUBLISH_URL="http://127.0.0.1:1/", IDEMPOTENCY_URL="memory://") as intake:
        await intake.ready()
        assert (await order(intake.port, "k-1", {})).status == 422
        assert (await order(intake.port, "k-1", {"apple": 0})).status == 422
        assert (await order(intake.port, "k-1", {"a b": 1})).status == 422
        missing = await call(intake.port, method="POST", headers={"Content-Type": "application/json"}, body=b"{}")
        assert missing.status in (400, 422)


async def test_order_whose_event_cannot_be_sent_is_taken_by_the_repeat() -> None:
    """503 while nobody takes the event; the same call later is the same order."""
    env = {"IDEMPOTENCY_URL": "memory://", "PUBLISH_TIMEOUT": "300ms"}
    async with (
        webhook() as hook,
        sample("notifier", WEBHOOK_URL=hook.url) as notifier,
        sample("order-worker", EVENTS_URL="http:", PUBLISH_URL=notifier.url) as worker,
        sample("order-intake", PUBLISH_URL=worker.url, **env) as intake,
    ):
        for function in (notifier, worker, intake):
            await function.ready()
        hook.statuses[:] = [503] * 40
        refused = await order(intake.port, "k-1", {"apple": 1})
        hook.statuses.clear()
        taken = await order(intake.port, "k-1", {"apple": 1})
        assert (refused.status, taken.status) == (503, 202)
        assert await left(worker.port, "apple") == 99
    assert {notice.order_id for notice in hook.got} == {taken.json()["order_id"]}


async def test_forged_order_is_refused_and_a_signed_one_goes_through(tmp_path: Path) -> None:
    """Outside of `make up`: the gateway authenticates nobody, so the function does."""
    for name, key in (("events-key", KEY), ("other-key", OTHER_KEY)):
        (tmp_path / name).write_text(key)
    guarded = {"EVENTS_HTTP_PUBLIC": None, "EVENTS_HTTP_SECRET": "events-key", "FAAS_SECRETS_DIR": str(tmp_path)}
    async with (
        webhook() as hook,
        sample("notifier", **guarded, WEBHOOK_URL=hook.url) as notifier,
        sample("order-worker", **guarded, PUBLISH_URL=notifier.url, PUBLISH_SECRET="events-key") as worker,
    ):
        sending = {"PUBLISH_URL": worker.url, "IDEMPOTENCY_URL": "memory://", "FAAS_SECRETS_DIR": str(tmp_path)}
        async with (
            sample("order-intake", **sending, PUBLISH_SECRET="events-key") as intake,
            sample("order-intake", **sending, PUBLISH_SECRET="other-key") as forger,
        ):
            for function in (notifier, worker, intake, forger):
                await function.ready()
            assert (await push(worker.port, "o-1")).status == 401
            assert (await push(worker.port, "o-2", headers={"Authorization": "Bearer guess"})).status == 401
            assert (await order(forger.port, "k-1", {"apple": 1})).status == 503
            assert await left(worker.port, "apple") == 100
            answer = await order(intake.port, "k-1", {"apple": 1})
            assert answer.status == 202
            assert await left(worker.port, "apple") == 99
            [notice] = await hook.notices()
    assert notice.order_id == answer.json()["order_id"]


async def test_webhook_gets_a_signature_where_a_secret_is_named(tmp_path: Path) -> None:
    """Standard Webhooks, the event's id being the message's; a secret that is not there stops the start."""
    (tmp_path / "hook-key").write_text(KEY)
    env = {"FAAS_SECRETS_DIR": str(tmp_path), "EVENTS_URL": "http:"}
    async with (
        webhook() as hook,
        sample("notifier", WEBHOOK_URL=hook.url, WEBHOOK_SECRET="hook-key", **env) as notifier,
    ):
        headers = {"ce-specversion": "1.0", "ce-id": "e-1", "ce-source": "/s", "ce-type": "order.fulfilled"}
        body = b'{"order_id": "o-1", "customer": "ada"}'
        await eventually(lambda: notifier.answers("/_/ready"), "ready")
        assert (await call(notifier.port, method="POST", headers=headers, body=body)).status == 204
        assert hook.got[0].headers["webhook-id"] == "e-1"
        assert hook.got[0].headers["webhook-signature"].startswith("v1,")
    async with sample("notifier", WEBHOOK_URL=hook.url, WEBHOOK_SECRET="no-key", **env).unwaited() as notifier:
        assert await notifier.exited() == 1
        assert "which setting WEBHOOK_SECRET names, cannot be read" in notifier.output()
    async with sample("notifier", WEBHOOK_URL="ftp://canary.example/", **env).unwaited() as notifier:
        assert await notifier.exited() == 1
        assert "setting WEBHOOK_URL cannot be used" in notifier.output()
        assert "canary" not in notifier.output()

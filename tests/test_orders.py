"""order-intake, order-worker and notifier as processes on real brokers: one trace, and nothing lost or done twice."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import anyio.to_thread
import pytest

from deploy.brokers.kafka import KafkaServer
from deploy.brokers.nats import NatsServer
from tests.kafka_orders import eventually
from tests.order_chain import NAMES, Outcomes, left, make_outcomes, memory_limit, order, push, sample, webhook
from tests.otlp_sink import Span, otlp_sink
from tests.servers import RedisServer
from tests.servers_kafka import MakeTopic

pytestmark = pytest.mark.anyio

TRACE = f"{7:032x}"
CALLER = "00f067aa0ba902b7"
CHAIN = (
    ("order-intake", "SERVER"),
    ("order-intake", "PRODUCER"),
    ("order-worker", "CONSUMER"),
    ("order-worker", "PRODUCER"),
    ("notifier", "CONSUMER"),
    ("notifier", "CLIENT"),
)
ORDERS = 50
EACH = 3
SERVED = 100 // EACH


@pytest.fixture
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Give a stock of the test's own."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
async def outcomes(nats_server: NatsServer) -> Outcomes:
    """Give a stream of the test's own."""
    return await make_outcomes(nats_server)


def worker_env(kafka: KafkaServer, topic: str, outcomes: Outcomes, redis: RedisServer) -> dict[str, str]:
    """Return the settings of order-worker as stack.yml takes them."""
    events = {"EVENTS_URL": f"{kafka.url}/{topic}?group={topic}", "EVENTS_SESSION_TIMEOUT": "500ms"}
    return {**events, "PUBLISH_URL": outcomes.publish_url, "STOCK_URL": redis.url}


def chain_of(spans: list[Span]) -> list[Span]:
    """Return the spans of the trace that lie on the way of the order, in its order, as far as they are there."""
    found = {(span.resource["service.name"], span.kind): span for span in spans if span.trace_id == TRACE}
    return [found[place] for place in CHAIN if place in found]


async def test_one_trace_runs_from_the_caller_to_the_webhook(
    kafka: KafkaServer, make_topic: MakeTopic, outcomes: Outcomes, redis: RedisServer
) -> None:
    """Over HTTP, Kafka, NATS and HTTP, each span below the one before."""
    topic = await make_topic(2)
    with otlp_sink() as sink:
        traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
        async with (
            webhook() as hook,
            sample("order-intake", PUBLISH_URL=f"{kafka.url}/{topic}", IDEMPOTENCY_URL=redis.url, **traced) as intake,
            sample("order-worker", **worker_env(kafka, topic, outcomes, redis), **traced) as worker,
            sample("notifier", EVENTS_URL=outcomes.events_url, WEBHOOK_URL=hook.url, **traced) as notifier,
        ):
            answer = await order(intake.port, "k-1", {"apple": 2}, headers={"traceparent": f"00-{TRACE}-{CALLER}-01"})
            assert answer.status == 202
            [notice] = await hook.notices()
            await anyio.to_thread.run_sync(sink.wait_for, lambda spans: len(chain_of(spans)) == len(CHAIN))
            assert await left(worker.port, "apple") == 98
            for name, function in zip(NAMES, (intake, worker, notifier), strict=True):
                assert function.resident_bytes() < memory_limit(name) / 2
        chain = chain_of(sink.spans)
    assert [span.parent_id for span in chain] == [CALLER, *(span.span_id for span in chain[:-1])]
    assert notice.headers["traceparent"] == f"00-{TRACE}-{chain[-1].span_id}-01"
    assert (notice.type, notice.order_id, notice.data["missing"]) == ("order.fulfilled", answer.json()["order_id"], [])


async def test_worker_killed_amid_orders_reserves_each_once_and_tells_of_all(
    kafka: KafkaServer, make_topic: MakeTopic, outcomes: Outcomes, redis: RedisServer
) -> None:
    """Killed when Redis has its reservations and it has no answer, so that the other worker does them again."""
    topic = await make_topic(6)
    env = worker_env(kafka, topic, outcomes, redis)
    async with (
        webhook() as hook,
        sample("order-intake", PUBLISH_URL=f"{kafka.url}/{topic}", IDEMPOTENCY_URL="memory://") as intake,
        sample("order-worker", **env) as doomed,
        sample("order-worker", **env) as other,
        sample("notifier", EVENTS_URL=outcomes.events_url, WEBHOOK_URL=hook.url),
    ):
        for worker in (doomed, other):
            await worker.log_line("given 3 partitions", timeout_seconds=15.0)
        first = [await order(intake.port, f"k-{number}", {"apple": EACH}) for number in range(10)]
        await hook.notices(10)
        redis.pause()
        keys = [f"k-{number}" for number in range(10, ORDERS)]
        rest = await asyncio.gather(*(order(intake.port, key, {"apple": EACH}) for key in keys))
        await asyncio.sleep(0.5)
        doomed.send_signal(signal.SIGKILL)
        await doomed.exited()
        redis.resume()
        notices = await hook.notices(ORDERS, seconds=25.0)
        assert await left(other.port, "apple") == 100 - SERVED * EACH
        assert redis.calls("evalsha") > ORDERS, "nothing was reserved by the one that was killed"
    ordered = {answer.json()["order_id"] for answer in [*first, *rest]}
    # One outcome an order: who is told twice is told the same, by the same id.
    assert sorted(notice.order_id for notice in notices) == sorted(ordered)
    assert len(ordered) == ORDERS
    assert sum(notice.type == "order.fulfilled" for notice in notices) == SERVED
    assert {notice.type for notice in notices if notice.data["missing"]} == {"order.rejected"}


async def test_webhook_that_is_down_is_tried_again_and_one_that_refuses_ends_the_event(outcomes: Outcomes) -> None:
    """Later ones go on; what was refused is a dead letter, with the reason in it."""
    async with (
        webhook(503, 429, 410) as hook,
        sample("notifier", EVENTS_URL=outcomes.events_url, WEBHOOK_URL=hook.url) as notifier,
        sample("order-worker", EVENTS_URL="http:", PUBLISH_URL=outcomes.publish_url) as worker,
    ):
        await notifier.ready()
        await worker.ready()
        for _ in range(2):
            # The second is told with the id of the first, and goes no further than the stream.
            assert (await push(worker.port, "o-1")).status == 204
        await notifier.log_line("is a dead letter after 3 attempts: the webhook answers 410", timeout_seconds=10.0)
        assert (await push(worker.port, "o-2")).status == 204
        await eventually(lambda: hook.got[-1].order_id == "o-2", "told of the second")
        assert [notice.order_id for notice in hook.got] == ["o-1", "o-1", "o-1", "o-2"]
        assert "is to be tried again: the webhook answers 503" in notifier.output()
        assert hook.url not in notifier.output()

"""What every transport that events are fetched from promises its handlers, on real brokers."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from types import ModuleType
from typing import Any

import pytest

from faasbase import Event, Reject, Retry, current_delivery, on_event, publish, span
from faasbase.consuming import Consumers
from faasbase.event_policy import EventsPolicy
from faasbase.events import PublishError
from faasbase.events.dead_letters import DeadLetter
from faasbase.events.handlers import event_handlers
from faasbase.events.sources import open_sources
from faasbase.settings import Settings
from faasbase.testing import captured_spans
from tests.event_channels import Channel, opened_channel

pytestmark = pytest.mark.anyio

START_SECONDS = 10.0
PATIENCE_SECONDS = 8.0
STRUCTURED = {"content-type": "application/cloudevents+json"}


NEEDS = {"memory": [], "nats": ["nats_server"], "kafka": ["kafka"], "http": ["nats_server"]}


@pytest.fixture(params=["memory", "nats", "kafka"])
async def channel(request: pytest.FixtureRequest) -> AsyncIterator[Channel]:
    """Give a place of the test's own on each transport that events are fetched from."""
    servers = {name: request.getfixturevalue(name) for name in NEEDS[request.param]}
    async with opened_channel(request.param, servers) as opened:
        yield opened


@pytest.fixture(params=["memory", "nats", "kafka", "http"])
async def any_channel(request: pytest.FixtureRequest) -> AsyncIterator[Channel]:
    """Give one on those that events are pushed by, too: what their sender keeps and counts is none of ours."""
    servers = {name: request.getfixturevalue(name) for name in NEEDS[request.param]}
    async with opened_channel(request.param, servers) as opened:
        yield opened


@asynccontextmanager
async def consuming(channel: Channel, *functions: Any, **policy: Any) -> AsyncIterator[Consumers]:
    """Have *functions* handle what comes by *channel*; `publish` sends to it."""
    defaults = {"lanes": 4, "retry_base": 0.05, "max_attempts": 3, "commit_interval": 0.1}
    places = {"publish_url": channel.publish_url, "deadletter_url": channel.deadletter_url}
    events = EventsPolicy(urls=(channel.url,), http_public=True, **{**places, **defaults, **policy})
    settings = Settings(function_name="fulfil", root_path="/function/fulfil", events=events)
    module = ModuleType("handler")
    module.__file__ = "handler.py"
    for function in functions:
        setattr(module, function.__name__, function)
    async with channel.serving(module, settings):
        sources, processor = open_sources(event_handlers(module), settings)
        consumers = Consumers(sources, processor.close, start_seconds=START_SECONDS)
        await consumers.start()
        try:
            yield consumers
        finally:
            await consumers.drain(PATIENCE_SECONDS)


async def until(met: Callable[[], bool]) -> None:
    """Wait until *met* is true."""
    until = time.monotonic() + PATIENCE_SECONDS
    while not met():
        assert time.monotonic() < until, "it has not come"
        await asyncio.sleep(0.01)


async def sent(event_type: str, data: Any = None) -> None:
    """Publish an event that its handler gives up, which pushers are told at once."""
    with suppress(PublishError):
        await publish(event_type, data)


async def letters_of(channel: Channel, count: int) -> list[DeadLetter]:
    """Wait until there are *count* dead letters, and return them."""
    until = time.monotonic() + PATIENCE_SECONDS
    while len(letters := await channel.letters()) < count:
        assert time.monotonic() < until, f"{len(letters)} dead letters of {count}"
        await asyncio.sleep(0.01)
    assert len(letters) == count
    return letters


async def test_event_arrives_as_it_was_published(any_channel: Channel) -> None:
    """With its attributes, in whatever letters, its key and its data."""
    seen: list[Event[dict[str, str]]] = []
    keys: list[bytes | None] = []

    @on_event("order.created")
    async def take(event: Event[dict[str, str]]) -> None:
        seen.append(event)
        keys.append(key_of_delivery())

    async with consuming(any_channel, take):
        extensions = {"region": "östlich"}
        sent = await publish("order.created", {"name": "Grüße"}, key="k %é", subject='50 % "x"', extensions=extensions)
        await until(lambda: bool(seen))
    event = seen[0]
    assert (event.id, event.subject, event.data) == (sent, '50 % "x"', {"name": "Grüße"})
    assert (event.extensions["region"], event.datacontenttype) == ("östlich", "application/json")
    assert keys == ["k %é".encode()]


def key_of_delivery() -> bytes | None:
    """Return the key of the event that is being handled."""
    delivery = current_delivery()
    return delivery.key if delivery is not None else None


async def test_structured_event_is_the_same(any_channel: Channel) -> None:
    """The mode is the sender's choice."""
    seen: list[Event[dict[str, int]]] = []
    keys: list[bytes | None] = []

    @on_event("order.created")
    async def take(event: Event[dict[str, int]]) -> None:
        seen.append(event)
        keys.append(key_of_delivery())

    async with consuming(any_channel, take, publish_mode="structured"):
        sent = await publish("order.created", {"n": 7}, subject="a b", key="é")
        await until(lambda: bool(seen))
    assert [(event.id, event.subject, event.data) for event in seen] == [(sent, "a b", {"n": 7})]
    assert keys == ["é".encode()]


async def test_plain_message_is_an_event_too(channel: Channel) -> None:
    """Its type is where it was sent, its id where it lies."""
    seen: list[tuple[Event[Any], str]] = []

    @on_event(channel.destination)
    async def take(event: Event[Any]) -> None:
        delivery = current_delivery()
        seen.append((event, delivery.position if delivery else ""))

    async with consuming(channel, take):
        await channel.write(b'{"n": 1}')
        await until(lambda: bool(seen))
    event, position = seen[0]
    assert (event.type, event.id, event.data) == (channel.destination, position, {"n": 1})


async def test_settled_event_does_not_come_again(channel: Channel) -> None:
    """Whoever fetches next begins behind it."""
    seen: list[str] = []

    @on_event("order.created")
    async def take(event: Event[Any]) -> None:
        seen.append(event.id)

    async with consuming(channel, take):
        first = [await publish("order.created") for _ in range(20)]
        await until(lambda: len(seen) == 20)
    async with consuming(channel, take):
        last = await publish("order.created")
        await until(lambda: last in seen)
    assert sorted(seen) == sorted([*first, last])


async def test_retry_comes_again_with_its_attempts_counted(channel: Channel) -> None:
    """After the time that the handler has asked for."""
    seen: list[tuple[int, float]] = []

    @on_event("order.created")
    async def take(event: Event[Any]) -> None:
        delivery = current_delivery()
        assert delivery is not None
        seen.append((delivery.attempt, time.monotonic()))
        if delivery.attempt < 3:
            raise Retry("the shop is closed", after_seconds=0.2)

    async with consuming(channel, take):
        await publish("order.created", key="k")
        await until(lambda: len(seen) == 3)
    assert [attempt for attempt, _ in seen] == [1, 2, 3]
    assert all(later - earlier >= 0.19 for (_, earlier), (_, later) in pairwise(seen))


async def test_failing_event_is_a_dead_letter_while_others_go_on(channel: Channel) -> None:
    """After its attempts, byte by byte, with what it failed of."""
    attempts: list[int] = []
    others: list[str] = []

    @on_event("order.poisoned")
    async def fail(event: Event[Any]) -> None:
        delivery = current_delivery()
        attempts.append(delivery.attempt if delivery else 0)
        raise RuntimeError("boom")

    @on_event("order.created")
    async def take(event: Event[Any]) -> None:
        others.append(event.id)

    async with consuming(channel, fail, take, retry_base=0.3):
        poisoned = await publish("order.poisoned", b"\x00\xff poison", key="bad")
        sent = [await publish("order.created", key=f"good-{number}") for number in range(10)]
        await until(lambda: len(others) == 10)
        [letter] = await letters_of(channel, 1)
    headers = {name.lower(): value for name, value in letter.headers}
    assert (attempts, sorted(others)) == ([1, 2, 3], sorted(sent))
    assert (letter.content, letter.attempts, letter.error) == (b"\x00\xff poison", 3, "RuntimeError")
    assert (letter.destination, headers[f"{channel.prefix}id"]) == (channel.destination, poisoned.encode())


async def test_rejected_event_is_a_dead_letter_at_once(any_channel: Channel) -> None:
    """No later try could succeed."""

    @on_event("order.created")
    async def refuse(event: Event[Any]) -> None:
        raise Reject("such orders are not taken")

    async with consuming(any_channel, refuse):
        await sent("order.created")
        [letter] = await letters_of(any_channel, 1)
    assert (letter.attempts, letter.reason, letter.error) == (1, "such orders are not taken", "Reject")


async def test_half_a_character_in_a_reason_stops_nothing(any_channel: Channel) -> None:
    """JSON may spell one, and handlers say what they were sent."""
    seen: list[str] = []

    @on_event("order.created")
    async def take(event: Event[dict[str, str]]) -> None:
        seen.append(event.id)
        if "bad" in event.data:
            raise Reject(f"there is no {event.data['bad']}")

    prefix = any_channel.prefix
    named = {"id": "1", "type": "order.created", "source": "/shop", "specversion": "1.0"}
    headers = {**{prefix + name: value for name, value in named.items()}, "content-type": "application/json"}
    async with consuming(any_channel, take):
        await any_channel.write(b'{"bad": "\\ud800"}', headers)
        good = await publish("order.created", {"good": "1"})
        [letter] = await letters_of(any_channel, 1)
        await until(lambda: good in seen)
    assert letter.reason == "there is no \\ud800"


async def test_try_that_does_not_count_spends_no_attempt(channel: Channel) -> None:
    """Another replica may have an event in work for longer than its attempts last."""
    seen: list[int] = []

    @on_event("order.created")
    async def take(event: Event[Any]) -> None:
        delivery = current_delivery()
        assert delivery is not None
        seen.append(delivery.attempt)
        if len(seen) < 9:
            raise Retry("it is in work elsewhere", after_seconds=0.02, counts=False)
        if len(seen) == 9:
            raise Retry("not yet", after_seconds=0.02)

    async with consuming(channel, take, max_attempts=2):
        await publish("order.created")
        await until(lambda: len(seen) == 10)
        assert await channel.letters() == []
    assert seen == [1] * 9 + [2]


async def test_malformed_messages_stop_nothing(any_channel: Channel) -> None:
    """They are dead letters, and the next event is handled."""
    seen: list[str] = []

    @on_event("order.created")
    async def take(event: Event[dict[str, int]]) -> None:
        seen.append(event.id)

    prefix = any_channel.prefix
    async with consuming(any_channel, take):
        await any_channel.write(b"{", STRUCTURED)
        await any_channel.write(b"[" * 100_000, STRUCTURED)
        await any_channel.write(b"{}", {f"{prefix}id": "1", f"{prefix}type": "order.created"})
        await any_channel.write(b"no order", {"content-type": "application/cloudevents+avro"})
        await sent("order.unheard")
        await sent("order.created", {"n": "seven"})
        good = await publish("order.created", {"n": 7})
        letters = await letters_of(any_channel, 6)
        await until(lambda: bool(seen))
    assert seen == [good]
    assert {letter.attempts for letter in letters} == {1}


async def test_trace_goes_on_in_the_handler(channel: Channel) -> None:
    """From the sender's span to the handler's, by the message's headers."""
    seen: list[str] = []

    @on_event("order.created")
    async def take(event: Event[Any]) -> None:
        seen.append(event.id)

    with captured_spans() as spans:
        async with consuming(channel, take):
            with span("checkout"):
                await publish("order.created")
            await until(lambda: bool(seen))
    named = {one.name.split()[0]: one for one in spans}
    sent, processed = named["send"], named["process"]
    assert sent.parent is not None
    assert processed.parent is not None
    assert sent.parent.span_id == named["checkout"].context.span_id
    assert processed.parent.span_id == sent.context.span_id
    assert processed.context.trace_id == named["checkout"].context.trace_id


async def test_repeat_sends_the_same_event(channel: Channel) -> None:
    """Ids are derived from the event that is handled: whoever takes them can tell."""
    sent: list[str] = []
    seen: list[str] = []

    @on_event("order.created")
    async def forward(event: Event[Any]) -> None:
        sent.append(await publish("order.fulfilled", key=event.id))
        if len(sent) == 1:
            raise Retry("once more", after_seconds=0.05)

    @on_event("order.fulfilled")
    async def take(event: Event[Any]) -> None:
        seen.append(event.id)

    async with consuming(channel, forward, take):
        await publish("order.created")
        await until(lambda: len(sent) == 2 and bool(seen))
    assert set(sent) == set(seen)
    assert len(set(sent)) == 1


async def test_events_sent_in_another_order_keep_their_ids(channel: Channel) -> None:
    """By order alone the second run would give one the id of the other, which would be dropped as known."""
    runs: list[list[str]] = []

    @on_event("order.created")
    async def forward(event: Event[Any]) -> None:
        parts = [1, 2] if not runs else [2, 1, 1]
        runs.append([await publish("order.packed", {"part": part}) for part in parts])
        if len(runs) == 1:
            raise Retry("once more", after_seconds=0.05)

    async with consuming(channel, forward, unknown="ignore"):
        await publish("order.created")
        await until(lambda: len(runs) == 2)
    first, second = runs
    assert second[:2] == first[::-1]
    assert len({*first, *second}) == 3


async def test_batch_is_settled_event_by_event(any_channel: Channel) -> None:
    """The handler takes a list and says what becomes of each."""
    sizes: list[int] = []
    settled: list[int] = []

    @on_event("order.created", batch_size=5, batch_wait=1.0)
    async def take(events: list[Event[dict[str, int]]]) -> list[Reject | None]:
        sizes.append(len(events))
        said = [Reject("three") if event.data["n"] == 3 else None for event in events]
        settled.extend(event.data["n"] for event, one in zip(events, said, strict=True) if one is None)
        return said

    async with consuming(any_channel, take):
        await asyncio.gather(*(sent("order.created", {"n": number}) for number in range(5)))
        [letter] = await letters_of(any_channel, 1)
        await until(lambda: len(settled) == 4)
    assert (sorted(settled), letter.reason) == ([0, 1, 2, 4], "three")
    assert max(sizes) > 1


async def test_drain_lets_handlers_end_and_keeps_the_rest(channel: Channel) -> None:
    """What was in flight is settled, what was not begun comes to the next one, and nothing twice."""
    begun: list[str] = []
    ended: list[str] = []

    @on_event("order.created")
    async def take(event: Event[Any]) -> None:
        begun.append(event.id)
        await asyncio.sleep(0.4)
        ended.append(event.id)

    async with consuming(channel, take, lanes=2, max_attempts=10):
        sent = [await publish("order.created", key=f"{number}") for number in range(6)]
        await until(lambda: len(begun) >= 2)
    assert begun == ended
    assert len(ended) < 6
    async with consuming(channel, take, max_attempts=10):
        await until(lambda: len(ended) >= 6)
    assert sorted(ended) == sorted(sent)


async def test_handler_that_overruns_is_ended_when_drained(channel: Channel) -> None:
    """It was not settled, so it comes again."""
    begun: list[str] = []
    ended: list[str] = []

    @on_event("order.created")
    async def take(event: Event[Any]) -> None:
        begun.append(event.id)
        if len(begun) == 1:
            await asyncio.sleep(60)
        ended.append(event.id)

    async with consuming(channel, take) as consumers:
        sent = await publish("order.created")
        await until(lambda: bool(begun))
        await consumers.drain(0.1)
    assert not ended
    async with consuming(channel, take):
        await until(lambda: bool(ended))
    assert ended == [sent]


@pytest.mark.parametrize("beside", [False, True])
async def test_one_lane_keeps_the_order(channel: Channel, beside: bool) -> None:
    """Also past an event that is tried again."""
    seen: dict[str, list[int]] = defaultdict(list)
    failed: list[int] = []

    @on_event("order.created")
    async def take(event: Event[dict[str, int]]) -> None:
        if event.data["n"] == 2 and not failed:
            failed.append(2)
            raise Retry("later", after_seconds=0.2)
        seen["k"].append(event.data["n"])

    @on_event("clicks", batch_size=50)
    async def count(events: list[Event[Any]]) -> None: ...

    async with consuming(channel, *((take, count) if beside else (take,)), lanes=1):
        for number in range(6):
            await publish("order.created", {"n": number}, key="k")
        await until(lambda: len(seen["k"]) == 6)
    assert seen["k"] == list(range(6))

"""The broker inside the process: order for each key, its bounds, and how long it lives."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import pytest

from faasbase import Event, Retry, on_event, publish
from faasbase.errors import SettingError
from faasbase.event_policy import EventsPolicy
from faasbase.events import PublishError, memory_broker
from faasbase.events.handlers import event_handlers
from faasbase.events.memory import open_publisher, open_source
from faasbase.events.memory_broker import memory_broker as broker_here
from faasbase.events.processing import Processor
from faasbase.events.publishing import opened_publisher
from faasbase.settings import Settings
from tests.processes import run_function
from tests.wire import call

pytestmark = pytest.mark.anyio

HANDLER = """
from faasbase import Event, on_event, publish


@on_event("order.created")
async def work(event: Event[int]) -> None:
    print("ended", event.data, flush=True)


async def handle() -> str:
    return await publish("order.created", 7)
"""
SECONDS = 5.0


@asynccontextmanager
async def consuming(*functions: Any, **policy: Any) -> AsyncIterator[None]:
    """Have *functions* handle what is published to the topic ``orders``."""
    events = EventsPolicy(urls=("memory://orders",), publish_url="memory://orders", **{"retry_base": 0.01, **policy})
    settings = Settings(function_name="fn", root_path="/function/fn", events=events)
    module = ModuleType("handler")
    for function in functions:
        setattr(module, function.__name__, function)
    source = open_source("memory://orders", settings, Processor(event_handlers(module)))
    async with opened_publisher(settings):
        await source.start()
        running = asyncio.create_task(source.run())
        try:
            yield
        finally:
            await source.drain(SECONDS)
            await running


async def test_each_key_keeps_its_order_while_others_go_on() -> None:
    """An event that is tried again holds back its own key only."""
    seen: dict[str, list[int]] = defaultdict(list)
    held, done = asyncio.Event(), asyncio.Event()

    @on_event("order.created")
    async def take(event: Event[dict[str, Any]]) -> None:
        key, number = event.data["key"], event.data["n"]
        if key == "a" and number == 0 and not held.is_set():
            raise Retry("later")
        seen[key].append(number)
        if len(seen["b"]) == 20:
            held.set()
        if sum(map(len, seen.values())) == 40:
            done.set()

    async with consuming(take, lanes=2):
        for number in range(20):
            for key in ("a", "b"):
                await publish("order.created", {"key": key, "n": number}, key=key)
        async with asyncio.timeout(SECONDS):
            await done.wait()
    assert seen == {"a": list(range(20)), "b": list(range(20))}


async def test_what_was_published_can_be_looked_at() -> None:
    """As the events that whoever takes them would get."""
    settings = Settings(root_path="/function/fn", events=EventsPolicy(publish_url="memory://orders"))
    async with opened_publisher(settings):
        first = await publish("order.created", {"n": 1}, subject="s")
        await publish("order.fulfilled", b"\x00", to="another")
    events = [(message.topic, message.event()) for message in broker_here().published]
    assert [(topic, event.type, event.data) for topic, event in events] == [
        ("orders", "order.created", {"n": 1}),
        ("another", "order.fulfilled", b"\x00"),
    ]
    assert (events[0][1].id, events[0][1].subject, events[0][1].source) == (first, "s", "/function/fn")


async def test_topic_that_nobody_takes_from_is_full_at_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process would otherwise fill with what it sends itself."""
    monkeypatch.setattr(memory_broker, "_MOST_WAITING", 3)
    publisher = open_publisher("memory://full", Settings())
    async with opened_publisher(Settings(root_path="/fn", events=EventsPolicy(publish_url="memory://full"))):
        for _ in range(3):
            await publish("order.created")
        with pytest.raises(PublishError, match="full"):
            await publish("order.created")
    assert publisher.destination == "full"


def test_nothing_outlives_its_event_loop() -> None:
    """Tests do not see what others have left."""

    async def written() -> int:
        broker_here().write("orders", b"{}")
        return len(broker_here().published)

    assert [asyncio.run(written()) for _ in range(3)] == [1, 1, 1]


@pytest.mark.parametrize("url", ["memory:", "memory://", "memory://a/b", "memory://a?b=c", "memory://u@a"])
def test_url_has_the_name_of_a_topic_only(url: str) -> None:
    """Everything else is a mistake."""
    with pytest.raises(SettingError, match="PUBLISH_URL"):
        open_publisher(url, Settings())


async def test_function_takes_what_it_sends_itself() -> None:
    """Source and publisher of one process share their topics."""
    env = {"EVENTS_URL": "memory://orders", "PUBLISH_URL": "memory://orders"}
    async with run_function(HANDLER, **env) as function:
        await function.ready()
        assert (await call(function.port, "/", method="POST")).status == 200
        await function.log_line("ended 7")
        assert await asyncio.to_thread(function.stop) == 0

"""Containers that fetch their events: the end of one settles what is in flight, and its dead letters can be read."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter

import pytest

from deploy.brokers.nats import NatsServer
from deploy.images.engine import Engine, EngineError
from deploy.images.pods import empty_dir, pod_options
from tests.e2e.conftest import Build
from tests.e2e.containers import new_name
from tests.e2e.replaying import SETTINGS, ForegroundContainer, run_image
from tests.test_events_nats import HANDLER, new_place, told

pytestmark = pytest.mark.anyio

WINDOW_SECONDS, LANES, EVENTS = 1.0, 4, 30
START_SECONDS = 20.0
LIST = ("python", "-m", "faasbase.deadletters", "list")


@pytest.mark.parametrize("shape", ["direct", pytest.param("watchdog", marks=pytest.mark.tool("of-watchdog"))])
async def test_stopped_container_settles_what_is_in_flight_and_repeats_nothing(
    engine: Engine, build: Build, nats_server: NatsServer, shape: str
) -> None:
    """Handlers that take longer than the window: of-watchdog ends with it, were there no call that it waits for."""
    assert SETTINGS["healthcheck_interval"] == f"{WINDOW_SECONDS:g}s"
    image = await asyncio.to_thread(build, HANDLER, "consumer", shape=shape)
    async with new_place(nats_server) as place:
        running = run_image(engine, image, shape, {"EVENTS_URL": place.url, "EVENTS_LANES": str(LANES)})
        async with running as first:
            await place.send("work", range(10))
            await place.send("work", range(10, 10 + LANES), seconds=3 * WINDOW_SECONDS)
            await place.send("work", range(10 + LANES, EVENTS), seconds=0.1)
            await first.log_line(f"began {9 + LANES}", timeout_seconds=START_SECONDS)
            signalled = time.monotonic()
            first.send_signal(signal.SIGTERM)
            assert await first.exited() == 0, first.tail()
            assert time.monotonic() - signalled > 2 * WINDOW_SECONDS
            before = told(first, "ended")
        assert (before, told(first, "began")) == (Counter(range(10 + LANES)), before)
        assert (await place.info()).num_ack_pending == 0
        async with run_image(engine, image, shape, {"EVENTS_URL": place.url}) as second:
            await place.settled()
            assert before + told(second, "ended") == Counter(range(EVENTS))


async def test_dead_letters_are_listed_in_the_container(engine: Engine, build: Build, nats_server: NatsServer) -> None:
    """By the function's user, who can write nothing, with the settings that it runs with."""
    image = await asyncio.to_thread(build, HANDLER, "consumer")
    async with new_place(nats_server) as place:
        await place.send("nobody's", range(1))
        async with run_image(engine, image, "direct", {"EVENTS_URL": place.url}) as container:
            assert isinstance(container, ForegroundContainer)
            await container.log_line("is a dead letter", timeout_seconds=START_SECONDS)
            listed = await asyncio.to_thread(engine.run, "exec", container.name, *LIST, "--json")
    (letter,) = map(json.loads, listed.splitlines())
    assert (letter["destination"], letter["error"]) == (place.subject, "UnknownType")


@pytest.mark.parametrize("scheme", ["kafka", "nats"])
def test_broker_that_is_away_is_told_in_one_line(engine: Engine, build: Build, scheme: str) -> None:
    """Nothing of libraries' own stands beside it."""
    image = build(HANDLER, "consumer")
    env = {"EVENTS_URL": f"{scheme}://127.0.0.1:9/orders?{'group' if scheme == 'kafka' else 'durable'}=worker"}
    with empty_dir() as tmp:
        options = pod_options(engine, new_name(), tmp, env=env, network="none")
        with pytest.raises(EngineError) as refused:
            engine.run("run", "--rm", *options, image, *LIST, "--timeout", "3s")
    _, _, said = str(refused.value).partition(" ended with 2: ")
    assert said.startswith("faasbase.deadletters: ")
    assert "127.0.0.1:9" in said
    assert said.count("\n") == 1

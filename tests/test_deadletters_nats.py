"""Dead letters from the command line, where they are a stream of NATS."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from nats.js.api import StreamConfig

from deploy.brokers.nats import NatsServer
from tests.letter_places import NatsPlace, a_letter, command, started, streams_of
from tests.servers_kafka import new_name

pytestmark = pytest.mark.anyio

PASSWORD = "a-canary-password"


@pytest.fixture
async def place(nats_server: NatsServer) -> NatsPlace:
    """Give a place of letters of the test's own."""
    streams = NatsPlace(nats_server)
    await streams.make()
    return streams


async def test_letter_gives_the_server_no_orders(place: NatsPlace, nats_server: NatsServer) -> None:
    """Who writes a letter writes its destination and headers: neither deletes a stream."""
    victim = new_name("victim")
    async with streams_of(nats_server) as streams:
        await streams.add_stream(StreamConfig(name=victim, subjects=[victim], allow_rollup_hdrs=True))
        await streams.publish(victim, b"kept")
    await place.keep(
        a_letter(place, 1, destination=f"$JS.API.STREAM.DELETE.{victim}", content=b""),
        a_letter(place, 2, destination=victim, headers=(("Nats-Rollup", b"sub"),)),
    )
    done = await command(place, "redrive")
    async with streams_of(nats_server) as streams:
        state = (await streams.stream_info(victim)).state
    assert (done.status, "1 redriven, 1 failed" in done.errors) == (1, True)
    assert state.messages == 2


async def test_large_letter_goes_back_whole(place: NatsPlace) -> None:
    await place.keep(a_letter(place, 1, content=b"\x00\xff" * 500_000))
    assert (await command(place, "redrive")).status == 0
    assert [message.content for message in await place.arrived()] == [b"\x00\xff" * 500_000]


async def test_letters_are_found_beside_the_source(nats_server: NatsServer) -> None:
    durable = new_name("notifier")
    async with streams_of(nats_server) as streams:
        subjects = [f"dead-letters.{durable}.>"]
        await streams.add_stream(StreamConfig(name=f"{durable}-dead-letters", subjects=subjects))
    listed = await command(None, "list", EVENTS_URL=f"{nats_server.url}/ORDERS?durable={durable}")
    assert (listed.status, "0 dead letters" in listed.errors) == (0, True)


async def test_stream_that_is_not_there_is_named(nats_server: NatsServer) -> None:
    done = await command(None, "list", EVENTS_URL=f"{nats_server.url}/ORDERS?durable=nobody")
    assert (done.status, "there is no stream nobody-dead-letters" in done.errors) == (2, True)
    assert len(done.errors.splitlines()) == 1


async def test_password_comes_from_its_secret_and_is_never_shown(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    secret = tmp_path / "secrets" / "nats-password"
    with NatsServer(tmp_path / "nats", users={"alice": PASSWORD}) as server:
        url = f"nats://alice@127.0.0.1:{server.port}/LETTERS?password_secret=nats-password"
        settings = {"DEADLETTER_URL": url, "FAAS_SECRETS_DIR": str(secret.parent)}
        missing = await command(None, "list", **settings)
        secret.write_text(f"wrong-{PASSWORD}")
        wrong = await command(None, "list", **settings)
        secret.write_text(PASSWORD)
        right = await command(None, "list", **settings)
    for done, word in ((missing, "secret nats-password"), (wrong, "refuses the credentials"), (right, "no stream")):
        assert (done.status, word in done.errors) == (2, True), done.errors
        assert len(done.errors.splitlines()) == 1
        assert PASSWORD not in done.errors


async def test_silent_server_ends_the_command(tmp_path: Path) -> None:
    with NatsServer(tmp_path) as server:
        place = NatsPlace(server)
        await place.make()
        await place.keep(*(a_letter(place, number) for number in range(40)))
        async with started(place, "redrive", "--json", "--rate", "20/s", "--timeout", "1s") as process:
            assert process.stdout is not None
            await asyncio.wait_for(process.stdout.readline(), 20)
            server.pause()
            _, errors = await asyncio.wait_for(process.communicate(), 20)
            server.resume()
        assert process.returncode == 1
        assert "has not answered within 1 s" in errors.decode().splitlines()[-1]
        assert (await command(place, "redrive")).status == 0
        assert len(await place.arrived()) == 40

"""The shared connections on a real server, behind a proxy that stalls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from faasbase.connections import (
    ConnectionsError,
    RedisConnections,
    RefusedError,
    Script,
    redis_connections,
)
from faasbase.errors import SettingError
from faasbase.redis_lanes import MAX_LANES
from faasbase.testing import captured_spans
from tests.servers import RedisServer
from tests.stalling import StallingProxy

pytestmark = pytest.mark.anyio

DEADLINE = 5.0
"""Long: nothing in these tests may depend on how busy the machine is."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
async def redis(server: RedisServer) -> AsyncIterator[RedisConnections]:
    server.command("FLUSHALL")
    connections = redis_connections(server.url)
    yield connections
    await connections.close()


async def ask(connections: RedisConnections, *command: object, deadline: float = DEADLINE) -> object:
    return await connections.execute(*command, deadline_seconds=deadline)


async def test_commands_are_answered_in_bytes(redis: RedisConnections) -> None:
    assert await ask(redis, "SET", "a", b"\x00\xff") == b"OK"
    assert await ask(redis, "GET", "a") == b"\x00\xff"
    assert await redis.get("a", DEADLINE) == b"\x00\xff"
    assert (await redis.get("b", DEADLINE), await ask(redis, "DEL", "a", "b")) == (None, 1)


async def test_what_is_asked_in_one_turn_travels_together(redis: RedisConnections, server: RedisServer) -> None:
    await ask(redis, "MSET", *(word for number in range(100) for word in (f"k{number}", number)))
    before = server.calls("mget")
    async with asyncio.TaskGroup() as callers:
        gets = [callers.create_task(redis.get(f"k{number}", DEADLINE)) for number in range(100)]
    assert [get.result() for get in gets] == [str(number).encode() for number in range(100)]
    assert server.calls("mget") - before == 1


async def test_replies_do_not_get_mixed_up(redis: RedisConnections) -> None:
    async def echo(number: int) -> None:
        if number % 3:
            assert await ask(redis, "ECHO", f"e{number}") == f"e{number}".encode()
        else:
            assert await redis.get(f"k{number}", DEADLINE) is None
        if number % 7 == 0:
            with pytest.raises(RefusedError):
                await ask(redis, "NOSUCHCOMMAND")

    async with asyncio.TaskGroup() as callers:
        for number in range(1000):
            callers.create_task(echo(number))


async def test_refusal_has_its_code_and_nothing_of_the_command(redis: RedisConnections) -> None:
    await ask(redis, "RPUSH", "s3cret-list", "x")
    with pytest.raises(RefusedError) as caught:
        await ask(redis, "INCR", "s3cret-list")
    assert (caught.value.code, "s3cret" in str(caught.value)) == ("WRONGTYPE", False)
    assert await redis.get("s3cret-list", DEADLINE) is None
    with pytest.raises(RefusedError, match="WRONGTYPE"):
        await ask(redis, "GET", "s3cret-list")


async def test_script_is_sent_once(redis: RedisConnections, server: RedisServer) -> None:
    server.command("SCRIPT", "FLUSH")
    script = Script("add", "return redis.call('INCRBY', KEYS[1], ARGV[1])")
    before = server.calls("eval")
    assert [await redis.script(script, ["n"], [number], DEADLINE) for number in (1, 2, 3)] == [1, 3, 6]
    assert server.calls("eval") - before == 1


async def test_cancelled_caller_leaves_the_others_their_replies(redis: RedisConnections) -> None:
    await ask(redis, "SET", "a", "1")
    callers = [asyncio.create_task(redis.get("a", DEADLINE)) for _ in range(10)]
    await asyncio.sleep(0)
    for caller in callers[::2]:
        caller.cancel()
    results = await asyncio.gather(*callers, return_exceptions=True)
    assert results[1::2] == [b"1"] * 5
    assert await redis.get("a", DEADLINE) == b"1"


async def test_users_of_one_loop_share_connections(server: RedisServer) -> None:
    async with StallingProxy(server.address) as proxy:
        first, second = (redis_connections(f"redis://127.0.0.1:{proxy.port}") for _ in range(2))
        await ask(first, "PING")
        await ask(second, "PING")
        assert proxy.connections == 1
        await first.close()
        assert await ask(second, "PING") == b"PONG"
        await second.close()
        await second.close()


async def test_black_hole_costs_the_deadline_and_a_bounded_number_of_connections(server: RedisServer) -> None:
    async with StallingProxy(server.address) as proxy:
        redis = redis_connections(f"redis://127.0.0.1:{proxy.port}")
        await ask(redis, "PING")
        proxy.black_hole = True
        started = time.monotonic()
        for _ in range(5):
            results = await asyncio.gather(*(redis.get("a", 0.05) for _ in range(50)), return_exceptions=True)
            assert {type(result) for result in results} == {TimeoutError}
        assert time.monotonic() - started < 2
        assert proxy.connections <= 1 + MAX_LANES
        proxy.black_hole = False
        with anyio.fail_after(10):
            while not await answers(redis):  # noqa: ASYNC110 - a server tells nobody that it is back
                await anyio.sleep(0.05)
        await redis.close()


async def answers(redis: RedisConnections) -> bool:
    try:
        return await ask(redis, "PING", deadline=1) == b"PONG"
    except (ConnectionsError, TimeoutError):
        return False


async def test_slow_server_delays_nobody_beyond_his_deadline_and_answers_the_patient(server: RedisServer) -> None:
    async with StallingProxy(server.address) as proxy:
        redis = redis_connections(f"redis://127.0.0.1:{proxy.port}")
        await ask(redis, "SET", "a", "1")
        proxy.delay_seconds = 0.3
        patient = asyncio.create_task(redis.get("a", DEADLINE))
        with pytest.raises(TimeoutError):
            await redis.get("a", 0.05)
        assert await patient == b"1"
        await redis.close()


async def test_restart_between_commands_is_not_noticed(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        redis = redis_connections(server.url)
        await ask(redis, "PING")
        server.stop()
        with pytest.raises(ConnectionsError) as caught:
            await ask(redis, "PING")
        assert str(server.port) not in str(caught.value)
        server.start()
        assert await ask(redis, "PING") == b"PONG"
        await redis.close()


async def test_connection_that_was_cut_is_made_anew(server: RedisServer) -> None:
    async with StallingProxy(server.address) as proxy:
        redis = redis_connections(f"redis://127.0.0.1:{proxy.port}")
        await ask(redis, "PING")
        proxy.cut()
        await anyio.sleep(0.05)
        assert await ask(redis, "PING") == b"PONG"
        await redis.close()


async def test_closing_tells_those_who_wait(server: RedisServer) -> None:
    async with StallingProxy(server.address) as proxy:
        redis = redis_connections(f"redis://127.0.0.1:{proxy.port}")
        await ask(redis, "PING")
        proxy.black_hole = True
        waiting = asyncio.create_task(redis.get("a", DEADLINE))
        await anyio.sleep(0.05)
        await redis.close()
        with pytest.raises(ConnectionsError, match="closed"):
            await waiting


async def test_span_names_server_and_command_and_nothing_of_its_content(server: RedisServer) -> None:
    with captured_spans() as spans:
        redis = redis_connections(server.url)
        await ask(redis, "SET", "k3y", "s3cret")
        await redis.close()
    (span,) = spans
    assert (span.name, span.kind.name) == ("SET", "CLIENT")
    assert dict(span.attributes or {}) == {
        "db.system.name": "redis",
        "db.namespace": "0",
        "db.operation.name": "SET",
        "server.address": "127.0.0.1",
        "server.port": server.port,
    }


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "redis://",
        "redis://:s3cret@h:x",
        "redis://h/-1",
        "redis://h/s3cret",
        "redis://h?s3cret=1",
        "redis://h?username=a&username=b",
        "redis://:s3cret@h?password_secret=a",
        "redis://h?password_secret=../s3cret",
        "redis://h?ca_secret=a",
        "redis://[s3cret",
    ],
)
def test_unusable_url_is_refused_and_not_shown(url: str) -> None:
    with pytest.raises(SettingError) as caught:
        redis_connections(url, setting="CACHE_URL")
    assert (caught.value.name, "s3cret" in str(caught.value)) == ("CACHE_URL", False)


async def test_server_that_takes_no_more_connections_is_asked_over_those_there_are(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        redis = redis_connections(server.url)
        await ask(redis, "PING")
        # One is ours, and one is kept for the administrator.
        server.command("CONFIG", "SET", "maxclients", 2)
        slow = asyncio.create_task(ask(redis, "BLPOP", "nothing", 1))
        await asyncio.sleep(0.1)
        beside = [asyncio.create_task(ask(redis, "PING")) for _ in range(20)]
        await asyncio.gather(slow, *beside, return_exceptions=True)
        assert [await ask(redis, "PING") for _ in range(5)] == [b"PONG"] * 5
        await redis.close()

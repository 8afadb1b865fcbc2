"""Servers that drip, flood, lie and never end: each costs a fetch its bounds and no more."""

from __future__ import annotations

import asyncio
import gzip
import socket
import time
import tracemalloc
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, ip_network
from threading import Event
from typing import Any

import pytest

from faasbase.fetching import (
    BadAnswerError,
    BusyError,
    Fetcher,
    FetchPolicy,
    RedirectError,
    TooLargeError,
    TooSlowError,
    UnreachableError,
)
from faasbase.fetching.resolving import SystemResolver
from tests.hostile_http import (
    Behaviour,
    HostileServer,
    answer,
    endless,
    hostile_server,
    packed,
    raw,
    redirect,
    reset,
    silent,
)
from tests.name_server import DnsResolver

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
OK = b"HTTP/1.1 200 OK\r\n"


def fetcher_of(**policy: Any) -> Fetcher:
    """Return a fetcher that may reach this machine."""
    opened = {"ports": (range(1, 65536),), "allow_ranges": (ip_network("127.0.0.0/8"),), "timeout_seconds": 8.0}
    return Fetcher(FetchPolicy(**{**opened, **policy}))


@pytest.fixture
async def server() -> AsyncIterator[HostileServer]:
    async with hostile_server() as running:
        yield running


@pytest.mark.parametrize(
    "behaviour",
    [
        silent,
        endless(OK + b"content-length: 1000000\r\n\r\n", b"x", 0.05),
        endless(OK + b"content-length: 1000000\r\n", b"x", 0.05),
        endless(OK, b"x-slow: 1\r\n", 0.05),
        endless(b"", b"HTTP/1.1 103 Early Hints\r\n", 0.05),
    ],
    ids=["silence", "slow body", "slow header", "slow headers", "slow interim"],
)
async def test_slow_server_costs_the_deadline(server: HostileServer, behaviour: Behaviour) -> None:
    """However steadily it drips: the time is for all of it."""
    server.paths["/"] = behaviour
    started = time.monotonic()
    with pytest.raises(TooSlowError) as failed:
        await fetcher_of(timeout_seconds=0.5).fetch(server.url)
    assert failed.value.status == 504
    assert 0.4 < time.monotonic() - started < 4


async def test_silence_in_an_answer_has_a_shorter_bound(server: HostileServer) -> None:
    server.paths["/"] = endless(OK + b"content-length: 10\r\n\r\n", b"x", 30)
    with pytest.raises(TooSlowError):
        await fetcher_of(read_seconds=0.3, timeout_seconds=60).fetch(server.url)


async def test_redirects_share_one_deadline(server: HostileServer) -> None:
    server.paths["/"] = redirect("/silent")
    server.paths["/silent"] = silent
    with pytest.raises(TooSlowError):
        await fetcher_of(timeout_seconds=0.4).fetch(server.url)


async def test_name_server_that_does_not_answer_costs_the_deadline() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind(("127.0.0.1", 0))
        fetcher = Fetcher(FetchPolicy(connect_seconds=0.3), resolver=DnsResolver(deaf.getsockname()[1]))
        with pytest.raises(TooSlowError):
            await fetcher.fetch("http://slow.example/")


async def test_names_that_are_looked_up_at_a_time_are_bounded() -> None:
    """Eight threads, and a bounded number that wait for one; a caller who leaves frees none that is stuck."""
    stuck, begun = Event(), []

    def look_up(host: str) -> list[IPv4Address]:
        begun.append(host)
        stuck.wait(30)
        return [IPv4Address("127.0.0.1")]

    resolver = SystemResolver(look_up)
    waiting = [asyncio.ensure_future(resolver.resolve(f"{n}.example")) for n in range(72)]
    try:
        for task in waiting[:40]:
            await asyncio.sleep(0)
            task.cancel()
        waiting += [asyncio.ensure_future(resolver.resolve("more.example")) for _ in range(32)]
        await asyncio.sleep(0)
        with pytest.raises(BusyError) as refused:
            await resolver.resolve("one-more.example")
        assert (refused.value.status, refused.value.headers) == (503, {"Retry-After": "1"})
        assert len(begun) == 8
    finally:
        stuck.set()
        resolver.close()
        await asyncio.gather(*waiting, return_exceptions=True)


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (OK, b"x-more: " + b"y" * 500 + b"\r\n"),
        (OK + b"x-long: ", b"y" * 4096),
        (b"HTTP/1.1 200 ", b"OK" * 2048),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"", b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"),
        (b"", b"\r\n"),
    ],
    ids=["headers", "header", "reason", "100", "103", "blank lines"],
)
async def test_endless_head_is_a_bad_answer(server: HostileServer, head: bytes, piece: bytes) -> None:
    server.paths["/"] = endless(head, piece)
    with pytest.raises(BadAnswerError) as failed:
        await fetcher_of().fetch(server.url)
    assert failed.value.status == 502


async def test_too_many_small_headers_are_a_bad_answer(server: HostileServer) -> None:
    server.paths["/"] = raw(OK + b"".join(b"x-%d: 1\r\n" % n for n in range(101)) + b"content-length: 0\r\n\r\n")
    with pytest.raises(BadAnswerError):
        await fetcher_of().fetch(server.url)


@pytest.mark.parametrize(
    ("head", "piece"),
    [
        (OK + b"\r\n", b"x" * 65536),
        (OK + b"transfer-encoding: chunked\r\n\r\n", b"10000\r\n" + b"x" * 65536 + b"\r\n"),
        (OK + b"content-length: 900\r\n\r\n", b"x" * 100),
        (OK + b"content-length: 99999999999999999999\r\n\r\n", b"x" * 65536),
    ],
    ids=["until close", "chunked", "announced", "announced far beyond"],
)
async def test_endless_body_stops_at_the_limit(server: HostileServer, head: bytes, piece: bytes) -> None:
    server.paths["/"] = endless(head, piece, server=server)
    with pytest.raises(TooLargeError) as failed:
        await fetcher_of(max_bytes=800).fetch(server.url)
    assert failed.value.status == 413
    assert server.sent_bytes < 32 * MIB


async def test_endless_chunk_header_is_a_bad_answer(server: HostileServer) -> None:
    server.paths["/"] = endless(OK + b"transfer-encoding: chunked\r\n\r\n1;", b"x" * 4096)
    with pytest.raises(BadAnswerError):
        await fetcher_of().fetch(server.url)


@pytest.mark.parametrize("members", [1, 3])
async def test_gzip_bomb_stops_at_the_limit(server: HostileServer, members: int) -> None:
    """A hundred MiB from a hundred KiB: memory stays near the limit, since it is counted while it is unpacked."""
    server.paths["/"] = packed(bytes(100 * MIB), members=members)
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            await fetcher_of(max_bytes=2 * MIB).fetch(server.url)
        assert tracemalloc.get_traced_memory()[1] < 12 * MIB
    finally:
        tracemalloc.stop()


async def test_bomb_of_many_empty_members_stops_at_the_limit(server: HostileServer) -> None:
    server.paths["/"] = raw(OK + b"content-encoding: gzip\r\n\r\n" + gzip.compress(b"") * 100_000)
    with pytest.raises(TooLargeError):
        await fetcher_of(max_bytes=MIB).fetch(server.url)


@pytest.mark.parametrize("encoding", ["br", "zstd", "deflate", "gzip, gzip", "compress", "aes128gcm"])
async def test_encoding_that_was_not_asked_for_is_a_bad_answer(server: HostileServer, encoding: str) -> None:
    server.paths["/"] = answer(gzip.compress(b"hello"), content_encoding=encoding)
    with pytest.raises(BadAnswerError):
        await fetcher_of().fetch(server.url)
    assert server.asked[0].headers["accept-encoding"] == "gzip"


@pytest.mark.parametrize(
    "body",
    [b"no gzip", gzip.compress(b"hello" * 100)[:-5], gzip.compress(b"hello") + b"trail"],
    ids=["none", "cut short", "trailing bytes"],
)
async def test_damaged_gzip_is_a_bad_answer(server: HostileServer, body: bytes) -> None:
    server.paths["/"] = answer(body, content_encoding="gzip")
    with pytest.raises(BadAnswerError):
        await fetcher_of().fetch(server.url)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"hello",
        b"\x16\x03\x01\x00\x05hello\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"220 mail ESMTP\r\n",
        b"+PONG\r\n",
        b"HTTP/1.1 999999 What\r\n\r\n",
        b"HTTP/1.1 99 Low\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        OK + b"content-length: 5\r\n",
        OK + b"content-length: 5\r\n\r\nhel",
        OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        OK + b"content-length: -5\r\n\r\n",
        OK + b"content-length: five\r\n\r\n",
        OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhel",
        OK + b"transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n",
        OK + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        OK + b"bad name: 1\r\n\r\n",
        OK + b"x: a\x00b\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://[\r\ncontent-length: 0\r\n\r\n",
    ],
)
async def test_what_is_no_whole_http_answer_is_a_bad_one(server: HostileServer, sent: bytes) -> None:
    server.paths["/"] = raw(sent)
    with pytest.raises(BadAnswerError) as failed:
        await fetcher_of().fetch(server.url)
    assert failed.value.status == 502


async def test_bytes_behind_the_announced_length_are_not_read(server: HostileServer) -> None:
    server.paths["/"] = raw(OK + b"content-length: 5\r\n\r\nhello and more")
    assert (await fetcher_of().fetch(server.url)).body == b"hello"


async def test_reset_is_unreachable(server: HostileServer) -> None:
    server.paths["/"] = reset
    with pytest.raises((UnreachableError, BadAnswerError)) as failed:
        await fetcher_of().fetch(server.url)
    assert failed.value.status == 502


async def test_closed_port_is_unreachable_and_not_told_apart(server: HostileServer) -> None:
    """The caller of a function must not learn from its answers what there is inside."""
    async with hostile_server() as gone:
        pass
    with pytest.raises(UnreachableError) as closed:
        await fetcher_of().fetch(gone.url)
    with pytest.raises(UnreachableError) as unknown:
        await fetcher_of().fetch("http://nothing.invalid/")
    assert closed.value.detail == unknown.value.detail == "the address cannot be reached"
    assert str(gone.port) in closed.value.reason


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_loop_ends_at_the_limit(server: HostileServer, status: int) -> None:
    server.paths["/"] = redirect("/", status)
    with pytest.raises(RedirectError):
        await fetcher_of(max_redirects=3).fetch(server.url)
    assert len(server.asked) == 4


async def test_body_of_a_redirect_is_not_read(server: HostileServer) -> None:
    head = b"HTTP/1.1 302 Found\r\nlocation: /end\r\n\r\n"
    server.paths["/"] = endless(head, b"x" * 65536)
    server.paths["/end"] = answer(b"there")
    assert (await fetcher_of().fetch(server.url)).body == b"there"


@pytest.mark.parametrize("left", ["cancelled", "too slow", "too large", "block left"])
async def test_connection_ends_with_the_fetch(server: HostileServer, left: str) -> None:
    """However it ends: the server's next write finds nobody."""
    server.paths["/"] = endless(OK + b"\r\n", b"x" * 100, 0.02)
    fetcher = fetcher_of(
        max_bytes=1000 if left == "too large" else MIB, timeout_seconds=0.4 if left == "too slow" else 20
    )
    if left == "block left":
        async with fetcher.stream(server.url) as answered:
            assert await anext(answered.chunks)
    else:
        task = asyncio.ensure_future(fetcher.fetch(server.url))
        done, _ = await asyncio.wait({task}, timeout=0.3 if left == "cancelled" else 20)
        assert bool(done) == (left != "cancelled")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    for _ in range(500):
        if server.open == 0:
            break
        await asyncio.sleep(0.01)
    assert (server.connections, server.open) == (1, 0)

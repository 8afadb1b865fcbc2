"""Events published to another function: how they arrive, what is tried again, and what is told of a failure."""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest
import trustme

from faasbase.errors import SettingError
from faasbase.event_policy import EventsPolicy
from faasbase.events import PublishError, publish
from faasbase.events.http import connections
from faasbase.events.http.connections import HttpConnections, LostError
from faasbase.events.http.gateway import open_publisher
from faasbase.events.http.place import http_place
from faasbase.events.publishing import activate_publisher
from faasbase.secrets import use_directory
from faasbase.settings import Settings
from tests.hostile_http import Asked, Behaviour, HostileServer, answer, endless, hostile_server, raw, reset, silent
from tests.processes import free_port, run_function

pytestmark = pytest.mark.anyio

PATH = "/async-function/notifier/in"
ECHO = """
from fastapi import Request


async def handle(request: Request) -> None:
    print("from port", request.client.port, (await request.body()).decode())
"""


@asynccontextmanager
async def publishing(url: str, folder: Path | None = None, **policy: Any) -> AsyncIterator[None]:
    """Send what the block publishes to *url*, secrets being in *folder*."""
    events = EventsPolicy(**{"publish_timeout": 3.0, **policy})
    before = use_directory(folder)
    try:
        publisher = open_publisher(url, Settings(events=events))
        await publisher.open()
        structured = events.publish_mode == "structured"
        try:
            with activate_publisher(
                publisher, source="/shop", timeout_seconds=events.publish_timeout, structured=structured
            ):
                yield
        finally:
            await publisher.close()
    finally:
        use_directory(before)


@pytest.fixture
async def server() -> AsyncIterator[HostileServer]:
    """Run a gateway that takes what comes to `PATH`."""
    async with hostile_server() as server:
        server.paths[PATH] = answer(b"", 202)
        yield server


def one_after_the_other(*behaviours: Behaviour) -> Behaviour:
    """Answer each request by the next of *behaviours*."""
    left = list(behaviours)

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        await left.pop(0)(asked, writer)

    return behave


def test_path_that_may_be_a_token_is_not_shown() -> None:
    """Names of spans, metrics and errors have the function, or the server alone."""
    assert http_place("PUBLISH_URL", "https://hooks.example/services/T0/canary").name == "https://hooks.example"
    assert http_place("PUBLISH_URL", "http://gateway:8080/async-function/worker/in").name == "worker"


async def test_attributes_are_headers_in_binary_mode(server: HostileServer) -> None:
    """Percent-encoded as the HTTP binding says, the key as an extension."""
    async with publishing(f"{server.url}{PATH}"):
        extensions = {"note": 'a "b"\r\nx-evil: 1', "region": "50%"}
        await publish("order.created", {"id": 1}, id="e-1", key="b-7", subject="gr\u00fc\u00df", extensions=extensions)
    [asked] = server.asked
    headers = asked.headers
    assert (asked.method, asked.path, headers["host"]) == ("POST", PATH, f"127.0.0.1:{server.port}")
    told = [headers[f"ce-{name}"] for name in ("specversion", "id", "source", "type", "subject", "partitionkey")]
    assert told == ["1.0", "e-1", "/shop", "order.created", "gr%c3%bc%c3%9f", "b-7"]
    assert headers["ce-note"] == "a%20%22b%22%0d%0ax-evil:%201"
    assert (headers["ce-region"], headers["content-type"], headers["content-length"]) == (
        "50%25",
        "application/json",
        "8",
    )
    assert not {"x-evil", "authorization", "webhook-id", "x-call-id", "ce-datacontenttype"} & headers.keys()


async def test_structured_mode_has_all_in_the_body(server: HostileServer) -> None:
    """One content type, no attribute among the headers."""
    async with publishing(f"{server.url}{PATH}", publish_mode="structured"):
        await publish("order.created", {"id": 1}, key="b-7")
    [asked] = server.asked
    assert asked.headers["content-type"] == "application/cloudevents+json; charset=utf-8"
    assert not [name for name in asked.headers if name.startswith("ce-")]


@pytest.mark.parametrize("status", [408, 429, 503])
async def test_busy_function_is_asked_again_when_it_has_said(server: HostileServer, status: int) -> None:
    """After its ``Retry-After``, or soon where there is none."""
    busy = [answer(b"busy", status, Retry_After="1"), answer(b"busy", status)]
    server.paths[PATH] = one_after_the_other(*busy, answer(b"", 202))
    began = time.monotonic()
    async with publishing(f"{server.url}{PATH}"):
        await publish("order.created", id="e-1")
    assert [asked.headers["ce-id"] for asked in server.asked] == ["e-1"] * 3
    assert 1.0 <= time.monotonic() - began < 2.0


async def test_nobody_waits_for_what_comes_too_late(server: HostileServer) -> None:
    """A ``Retry-After`` beyond ``PUBLISH_TIMEOUT`` fails at once."""
    server.paths[PATH] = answer(b"busy", 503, Retry_After="60")
    began = time.monotonic()
    async with publishing(f"{server.url}{PATH}"):
        with pytest.raises(PublishError, match=r"^notifier answers 503"):
            await publish("order.created")
    assert time.monotonic() - began < 1.0


@pytest.mark.parametrize("status", [204, 200, 201])
async def test_any_success_has_taken_the_event(server: HostileServer, status: int) -> None:
    """202 is the asynchronous route's, 204 a handler's."""
    server.paths[PATH] = answer(b"", status)
    async with publishing(f"{server.url}{PATH}"):
        assert await publish("order.created", id="e-1") == "e-1"


@pytest.mark.parametrize("status", [301, 400, 401, 404, 413, 422, 500, 502, 504])
async def test_other_answers_are_final(server: HostileServer, status: int) -> None:
    """Trying again would not help, or do it twice: the handler's own attempts decide."""
    server.paths[PATH] = answer(b"the body is nobody's", status, Location="http://127.0.0.1:1/")
    async with publishing(f"{server.url}{PATH}"):
        with pytest.raises(PublishError) as failed:
            await publish("order.created")
    assert (failed.value.status, failed.value.reason, len(server.asked)) == (503, f"notifier answers {status}", 1)


async def test_no_answer_is_a_failure_in_time(server: HostileServer) -> None:
    """Whether the event has arrived is not known."""
    server.paths[PATH] = silent
    began = time.monotonic()
    async with publishing(f"{server.url}{PATH}", publish_timeout=0.5):
        with pytest.raises(PublishError, match="no answer within"):
            await publish("order.created")
    assert time.monotonic() - began < 1.5


@pytest.mark.parametrize(
    "hostile",
    [
        raw(b""),
        raw(b"SSH-2.0-OpenSSH\r\n"),
        raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 50),
        raw(b"HTTP/1.1 202 OK\r\n" + b"x-a: " + b"a" * 100_000 + b"\r\n\r\n"),
    ],
    ids=["closed", "another protocol", "interim answers", "long headers"],
)
async def test_answer_that_is_none_is_tried_again(server: HostileServer, hostile: Behaviour) -> None:
    """On another connection."""
    server.paths[PATH] = one_after_the_other(hostile, answer(b"", 202))
    async with publishing(f"{server.url}{PATH}"):
        await publish("order.created", id="e-1")
    assert [asked.headers["ce-id"] for asked in server.asked] == ["e-1", "e-1"]


@pytest.mark.parametrize(
    "rest",
    [reset, endless(b"HTTP/1.1 202 Taken\r\ntransfer-encoding: chunked\r\n\r\n", b"1000\r\n" + b"a" * 4096 + b"\r\n")],
    ids=["reset", "endless"],
)
async def test_status_is_enough(server: HostileServer, rest: Behaviour) -> None:
    """What happens to the body behind it does not send the event twice."""
    server.paths[PATH] = rest
    async with publishing(f"{server.url}{PATH}"):
        await publish("order.created")
    assert len(server.asked) == 1


async def test_connections_are_bounded(server: HostileServer) -> None:
    """Sixteen at a time, however many publish."""
    most = 0

    async def slow(asked: Asked, writer: asyncio.StreamWriter) -> None:
        nonlocal most
        most = max(most, server.open)
        await asyncio.sleep(0.02)
        await answer(b"", 202)(asked, writer)

    server.paths[PATH] = slow
    async with publishing(f"{server.url}{PATH}"):
        await asyncio.gather(*(publish("order.created") for _ in range(60)))
    assert (len(server.asked), most) == (60, 16)


async def test_another_function_of_the_gateway_can_be_named(server: HostileServer) -> None:
    """``to=`` takes the name's place and leaves the rest; what is no name never gets there."""
    server.paths["/async-function/shop.dev/in"] = answer(b"", 202)
    async with publishing(f"{server.url}{PATH}"):
        await publish("order.created", to="shop.dev")
        for name in ("..", "../../system/functions", "a/b", "a?b", "", "a" * 300, "a\r\nx: y"):
            if name:
                with pytest.raises(PublishError, match="to= must be the name"):
                    await publish("order.created", to=name)
    assert [asked.path for asked in server.asked] == ["/async-function/shop.dev/in"]
    async with publishing(f"{server.url}/elsewhere"):
        with pytest.raises(PublishError, match="to= must be the name"):
            await publish("order.created", to="shop")


async def test_credentials_are_shown_to_the_gateway_alone(server: HostileServer, tmp_path: Path) -> None:
    """From the URL, or from a secret that is read again when it changes; no message holds them."""
    (tmp_path / "gateway-password").write_text("first-word\n")
    host = f"127.0.0.1:{server.port}"
    async with publishing(f"http://shop:ca%40nary-word@{host}{PATH}", tmp_path):
        await publish("order.created")
        server.paths[PATH] = answer(b"", 401)
        with pytest.raises(PublishError) as failed:
            await publish("order.created")
    assert "nary" not in f"{failed.value!r}{failed.value}"
    server.paths[PATH] = answer(b"", 202)
    async with publishing(f"http://shop@{host}{PATH}?password_secret=gateway-password", tmp_path):
        await publish("order.created")
        (tmp_path / "gateway-password").write_text("second-word\n")
        await publish("order.created")
    words = ("ca@nary-word", "ca@nary-word", "first-word", "second-word")
    expected = [f"Basic {base64.b64encode(f'shop:{word}'.encode()).decode()}".lower() for word in words]
    assert [asked.headers["authorization"] for asked in server.asked] == expected


@pytest.mark.parametrize("content_type", ["text/plain\r\nx-evil: 1", "text/\u20ac", "a\0b"])
async def test_header_that_cannot_be_sent_is_a_failure(server: HostileServer, content_type: str) -> None:
    """Nothing is sent then, and nothing of it told."""
    async with publishing(f"{server.url}{PATH}"):
        with pytest.raises(PublishError) as failed:
            await publish("order.created", b"data", content_type=content_type)
    assert (server.asked, "evil" in failed.value.reason) == ([], False)


async def test_certificate_must_be_trusted(tmp_path: Path) -> None:
    """By the system, or by the certificates that ``ca_secret`` names."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    (tmp_path / "gateway-ca").write_bytes(authority.cert_pem.bytes())
    (tmp_path / "no-ca").write_text("nothing of the kind")
    async with hostile_server(context=context) as server:
        server.paths[PATH] = answer(b"", 202)
        async with publishing(f"{server.url}{PATH}?ca_secret=gateway-ca", tmp_path):
            await publish("order.created", id="e-1")
        async with publishing(f"{server.url}{PATH}", tmp_path):
            with pytest.raises(PublishError, match="certificate that is not trusted"):
                await publish("order.created", id="e-2")
        with pytest.raises(SettingError, match="PUBLISH_URL"):
            async with publishing(f"{server.url}{PATH}?ca_secret=no-ca", tmp_path):
                pass
    assert [asked.headers["ce-id"] for asked in server.asked] == ["e-1"]


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http:///async-function/a",
        "http://gate way:8080/function/a",
        "http://gateway:80canary80/function/a",
        "http://gateway:8080/function/\u00fc",
        "http://gateway:8080/function/a?option=canary",
        "http://gateway:8080/function/a#canary",
        "http://u:canary@gateway:8080/function/a?password_secret=p",
        "http://:canary@gateway:8080/function/a",
        "http://u%3Acanary:p@gateway/function/a",
        "http://gateway:8080/function/a?ca_secret=ca",
        "https://gateway:8080/function/a?ca_secret=../canary",
        "http://[::1/function/canary",
    ],
)
async def test_url_that_cannot_be_used_stops_the_start(url: str, tmp_path: Path) -> None:
    """By the setting's name, without anything of the URL."""
    for name in ("p", "ca"):
        (tmp_path / name).write_text("long enough")
    with pytest.raises(SettingError, match="setting PUBLISH_URL cannot be used") as failed:
        async with publishing(url, tmp_path):
            pass
    assert "canary" not in str(failed.value)


@pytest.mark.parametrize(("rest", "is_lost"), [(b"", False), (b"HTTP/1.1 2", True)], ids=["closed", "cut short"])
async def test_connection_that_ends_as_it_is_used_again_is_replaced(rest: bytes, is_lost: bool) -> None:
    """At once, unless an answer had begun: then the message may have been taken."""
    made = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal made
        made += 1
        with closing(writer), suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\nbody")
            writer.write(b"HTTP/1.1 202 Taken\r\ncontent-length: 0\r\n\r\n")
            await reader.readuntil(b"\r\n\r\nbody")
            writer.write(rest)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
        place = http_place("PUBLISH_URL", f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/")
        posting = HttpConnections(place, None)
        assert (await posting.post("/", [], b"body")).status == 202
        if is_lost:
            with pytest.raises(LostError):
                await posting.post("/", [], b"body")
        else:
            assert (await posting.post("/", [], b"body")).status == 202
        await posting.close()
    assert made == (1 if is_lost else 2)


class Vanishing:
    """A server that answers, until it takes nothing any more over the connections that there are."""

    def __init__(self) -> None:
        self.connections = 0
        self._old: set[int] = set()

    def vanish(self) -> None:
        """Take nothing more of who is connected now."""
        self._old = set(range(self.connections + 1))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        with closing(writer), suppress(asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if number in self._old:
                    await asyncio.sleep(60)
                await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
                await asyncio.sleep(0.05)
                writer.write(b"HTTP/1.1 202 Taken\r\ncontent-length: 0\r\n\r\n")


async def test_connections_to_a_host_that_has_vanished_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once and soon; one that is only slow to answer takes what it is sent."""
    monkeypatch.setattr(connections, "_UNTAKEN_SECONDS", 0.3)
    server, body = Vanishing(), bytes(16 * 1024 * 1024)
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=4096) as listening:
        place = http_place("PUBLISH_URL", f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/")
        posting = HttpConnections(place, None)
        await asyncio.gather(*(posting.post("/", [], b"body") for _ in range(3)))
        server.vanish()
        began = time.monotonic()
        async with asyncio.timeout(10):
            assert (await posting.post("/", [], body)).status == 202
        assert time.monotonic() - began < 2.5
        assert server.connections == 4
        await posting.close()
        listening.close()


async def test_connection_is_kept_and_replaced_when_the_server_has_closed_it() -> None:
    """A function that is replaced costs its publishers no event, and no second of waiting."""
    port = free_port()
    async with publishing(f"http://127.0.0.1:{port}/"):
        early = asyncio.create_task(publish("order.created", b"early"))
        await asyncio.sleep(0.3)
        async with run_function(ECHO, port=str(port)) as function:
            await early
            for number in range(3):
                await publish("order.created", f"kept {number}".encode())
            await function.log_line("kept 2")
            ports = [line.split()[2] for line in function.lines() if " kept " in line]
        assert (len(ports), len(set(ports))) == (3, 1)
        async with run_function(ECHO, port=str(port)) as function:
            await function.ready()
            began = time.monotonic()
            await publish("order.created", b"replaced")
            assert time.monotonic() - began < 0.5
            await function.log_line("replaced")

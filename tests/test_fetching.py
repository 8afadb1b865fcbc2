"""What a fetch of a well-meaning server gives, what it sends, and what it tells of it."""

from __future__ import annotations

import logging
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from ipaddress import ip_network
from typing import Any

import pytest
import trustme
from prometheus_client import REGISTRY

from faasbase import context
from faasbase.errors import SettingError
from faasbase.fetching import (
    BadUrlError,
    Fetcher,
    FetchError,
    FetchPolicy,
    RedirectError,
    TooSlowError,
    UnreachableError,
    Validators,
    activate_fetcher,
    fetch,
    stream,
)
from faasbase.settings import load_settings
from faasbase.testing import captured_spans
from tests.hostile_http import HostileServer, answer, endless, hostile_server, packed, redirect
from tests.name_server import name_server
from tests.staging import BASE

pytestmark = pytest.mark.anyio

OPEN: dict[str, Any] = {"ports": (range(1, 65536),), "allow_ranges": (ip_network("127.0.0.0/8"),)}
CANARY = "canary-5ecr37-value"


@pytest.fixture
async def server() -> AsyncIterator[HostileServer]:
    async with hostile_server() as running:
        with activate_fetcher(FetchPolicy(**OPEN)):
            yield running


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def contexts(authority: trustme.CA, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return a server's context with a certificate for *name*, and a client's that trusts its issuer."""
    serving, calling = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert(name).configure_cert(serving)
    authority.configure_trust(calling)
    return serving, calling


async def test_answer_has_status_headers_body_and_where_it_came_from(server: HostileServer) -> None:
    server.paths["/a"] = answer(b"hello", 203, Content_Type="Text/Plain; charset=utf-8", X_Two="1")
    fetched = await fetch(f"{server.url}/a?b=c#d")
    assert (fetched.status, fetched.body, fetched.content_type) == (203, b"hello", "text/plain")
    assert (fetched.headers["x-two"], fetched.url) == ("1", f"{server.url}/a?b=c")
    assert server.asked[0].path == "/a?b=c"


async def test_head_gives_headers_alone(server: HostileServer) -> None:
    server.paths["/"] = answer(b"", content_length="99999999999")
    fetched = await fetch(server.url, method="HEAD")
    assert (fetched.body, fetched.headers["content-length"]) == (b"", "99999999999")


async def test_error_status_is_an_answer_like_others(server: HostileServer) -> None:
    assert (await fetch(f"{server.url}/nothing")).status == 404


async def test_stream_gives_the_body_as_it_arrives(server: HostileServer) -> None:
    server.paths["/"] = endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 100_000)
    total = 0
    async with stream(server.url, max_bytes=10_000_000) as body:
        async for chunk in body.chunks:
            total += len(chunk)
            if total > 500_000:
                break
    assert 500_000 < total < 2_000_000


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "GZIP"])
async def test_gzip_is_unpacked(server: HostileServer, encoding: str) -> None:
    body = bytes(range(256)) * 3000
    server.paths["/"] = packed(body, encoding, members=2)
    assert (await fetch(server.url)).body == body * 2


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 131072, 1_000_000])
async def test_gzip_of_every_size_is_whole(server: HostileServer, size: int) -> None:
    server.paths["/"] = packed(bytes(size))
    assert (await fetch(server.url)).body == bytes(size)


async def test_path_is_sent_as_it_is_written_and_other_letters_encoded(server: HostileServer) -> None:
    await fetch(f"{server.url}/a/../%2e%2e/ü?q=ä&r=%zz")
    assert server.asked[0].path == "/a/../%2e%2e/%C3%BC?q=%C3%A4&r=%zz"


@pytest.mark.parametrize(
    ("location", "path"), [("/b", "/b"), ("b?x", "/dir/b?x"), ("../c", "/c"), ("/\u00fc", "/%C3%BC"), ("?q", "/dir/?q")]
)
async def test_redirect_is_followed_relative_to_where_it_stood(server: HostileServer, location: str, path: str) -> None:
    server.paths["/dir/"] = redirect(location)
    if location == "?q":
        server.paths["/dir/"] = _redirect_once(server, location)
    fetched = await fetch(f"{server.url}/dir/")
    assert [asked.path for asked in server.asked] == ["/dir/", path]
    assert fetched.url == f"{server.url}{path}"


def _redirect_once(server: HostileServer, location: str) -> Any:
    async def behave(asked: Any, writer: Any) -> None:
        await (redirect(location) if len(server.asked) == 1 else answer())(asked, writer)

    return behave


async def test_headers_go_to_their_own_origin_only(server: HostileServer) -> None:
    """Same host, another port: that is somebody else."""
    async with hostile_server() as other:
        server.paths["/"] = redirect("/here")
        server.paths["/here"] = redirect(f"{other.url}/there")
        other.paths["/there"] = redirect(f"{server.url}/back")
        secrets = {"Authorization": f"Bearer {CANARY}", "Cookie": CANARY, "X-Api-Key": CANARY}
        await fetch(server.url, headers={**secrets, "Accept": "image/*", "User-Agent": "me"})
        first, second, third = server.asked
        for asked in (first, second):
            assert {asked.headers[name] for name in ("cookie", "x-api-key")} == {CANARY}
        for asked in (*other.asked, third):
            assert CANARY not in str(asked.headers)
            assert (asked.headers["accept"], asked.headers["user-agent"]) == ("image/*", "me")


async def test_cookies_are_not_kept(server: HostileServer) -> None:
    server.paths["/"] = answer(b"", 302, location="/next", set_cookie="sid=1")
    await fetch(server.url)
    assert all("cookie" not in asked.headers for asked in server.asked)


async def test_environment_brings_no_proxy_and_no_password(
    server: HostileServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    async with hostile_server() as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        (tmp_path / ".netrc").write_text(f"machine 127.0.0.1 login me password {CANARY}\n")
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
        await fetch(server.url)
        assert (proxy.connections, "authorization" in server.asked[0].headers) == (0, False)


@pytest.mark.parametrize(
    ("headers", "method"),
    [
        ({"Host": "other"}, "GET"),
        ({"Content-Length": "3"}, "GET"),
        ({"X-Split": "a\r\nHost: other"}, "GET"),
        ({"bad name": "1"}, "GET"),
        ({}, "POST"),
        ({}, "GET / HTTP/1.1\r\nX:"),
    ],
)
async def test_request_that_must_not_be_sent_is_a_mistake(
    server: HostileServer, headers: dict[str, str], method: str
) -> None:
    with pytest.raises(ValueError, match=r"must be one of|set by the fetch|cannot be sent"):
        await fetch(server.url, headers=headers, method=method)
    assert server.asked == []


async def test_validators_ask_the_same_url_and_nobody_else(server: HostileServer) -> None:
    server.paths["/"] = redirect("/image")
    server.paths["/image"] = answer(b"old", etag='"1"', last_modified="Wed, 21 Oct 2015 07:28:00 GMT")
    known = (await fetch(server.url)).validators
    assert known == Validators(f"{server.url}/image", '"1"', "Wed, 21 Oct 2015 07:28:00 GMT")
    server.paths["/image"] = answer(b"", 304, content_length="99999999")
    fetched = await fetch(server.url, known=known)
    assert fetched.not_modified
    redirected, asked = server.asked[2:]
    assert "if-none-match" not in redirected.headers
    assert asked.headers["if-none-match"] == '"1"'
    assert asked.headers["if-modified-since"] == "wed, 21 oct 2015 07:28:00 gmt"


async def test_calls_own_deadline_bounds_the_fetch(server: HostileServer) -> None:
    server.paths["/"] = endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x", 0.05)
    call = context.CallContext("call", deadline=time.monotonic() + 0.4)
    token = context._current.set(call)
    try:
        started = time.monotonic()
        with pytest.raises(TooSlowError):
            await fetch(server.url, timeout_seconds=30)
        assert time.monotonic() - started < 4
    finally:
        context._current.reset(token)


async def test_certificate_is_for_the_name_though_the_address_is_connected_to(authority: trustme.CA) -> None:
    serving, calling = contexts(authority, "images.example")
    with name_server(images__example=[["127.0.0.1"]], other__example=[["127.0.0.1"]]) as (_, resolver):
        async with hostile_server(context=serving) as server:
            server.paths["/"] = answer(b"safe")
            fetcher = Fetcher(FetchPolicy(**OPEN), resolver=resolver, ssl_context=calling)
            fetched = await fetcher.fetch(f"https://images.example:{server.port}/")
            assert (fetched.body, server.asked[0].headers["host"]) == (b"safe", f"images.example:{server.port}")
            for host in ("other.example", "127.0.0.1"):
                with pytest.raises(UnreachableError) as failed:
                    await fetcher.fetch(f"https://{host}:{server.port}/")
                assert "certificate" in failed.value.reason
            stranger = Fetcher(FetchPolicy(**OPEN), resolver=resolver)
            with pytest.raises(UnreachableError):
                await stranger.fetch(f"https://images.example:{server.port}/")
            assert len(server.asked) == 1


@pytest.mark.parametrize("allowed", [False, True])
async def test_redirect_from_https_to_http_needs_a_setting(
    authority: trustme.CA, server: HostileServer, allowed: bool
) -> None:
    serving, calling = contexts(authority, "127.0.0.1")
    async with hostile_server(context=serving) as safe:
        safe.paths["/"] = redirect(f"{server.url}/plain")
        server.paths["/plain"] = answer(b"plain")
        fetcher = Fetcher(FetchPolicy(**OPEN, allow_downgrade=allowed), ssl_context=calling)
        if allowed:
            assert (await fetcher.fetch(safe.url)).body == b"plain"
        else:
            with pytest.raises(RedirectError):
                await fetcher.fetch(safe.url)
        assert len(server.asked) == allowed


async def test_next_address_is_tried_where_one_does_not_answer() -> None:
    async with hostile_server("127.0.0.3") as server:
        server.paths["/"] = answer(b"third")
        with name_server(many__example=[["127.0.0.1", "127.0.0.2", "127.0.0.3"]]) as (_, resolver):
            fetcher = Fetcher(FetchPolicy(**OPEN), resolver=resolver)
            assert (await fetcher.fetch(f"http://many.example:{server.port}")).body == b"third"


async def test_each_hop_is_a_client_span_without_secrets(server: HostileServer) -> None:
    server.paths["/"] = redirect(f"/end?token={CANARY}&{CANARY}")
    server.paths["/end"] = answer(b"", 503)
    with captured_spans() as spans:
        await fetch(f"{server.url}/?sig={CANARY}&x", headers={"Authorization": CANARY})
        with pytest.raises(FetchError):
            await fetch("http://10.0.0.1/")
        first, second, refused = spans
        assert {(span.name, span.kind.name) for span in spans} == {("GET", "CLIENT")}
        attributes = dict(first.attributes or {})
        assert attributes == {
            "http.request.method": "GET",
            "server.address": "127.0.0.1",
            "server.port": server.port,
            "url.full": f"{server.url}/?sig=REDACTED&REDACTED",
            "http.response.status_code": 302,
            "network.peer.address": "127.0.0.1",
        }
        last = second.attributes or {}
        assert (last["http.request.resend_count"], last["error.type"]) == (1, "503")
        assert (refused.attributes or {})["error.type"] == "address_refused"
        assert [span.to_json() for span in spans if CANARY in span.to_json()] == []
    assert all("traceparent" not in asked.headers for asked in server.asked)


async def test_trace_goes_on_where_a_setting_says_so(server: HostileServer) -> None:
    with captured_spans() as spans:
        await Fetcher(FetchPolicy(**OPEN, propagate_trace=True)).fetch(server.url)
        (span,) = spans
        span_id = f"{span.context.span_id:016x}"
    assert server.asked[0].headers["traceparent"].split("-")[2] == span_id


async def test_time_is_measured_without_a_series_for_each_host(server: HostileServer) -> None:
    def count(outcome: str) -> float:
        labels = {"method": "GET", "outcome": outcome}
        return REGISTRY.get_sample_value("http_client_request_duration_seconds_count", labels) or 0.0

    before = [count(outcome) for outcome in ("2xx", "address_refused")]
    server.paths["/"] = answer()
    await fetch(server.url)
    with pytest.raises(FetchError):
        await fetch("http://10.0.0.1/")
    assert [count(outcome) for outcome in ("2xx", "address_refused")] == [number + 1 for number in before]


async def test_log_has_the_address_that_the_caller_is_not_told(
    server: HostileServer, caplog: pytest.LogCaptureFixture
) -> None:
    with name_server(inside__example=[["10.20.30.40"]]) as (_, resolver):
        fetcher = Fetcher(FetchPolicy(), resolver=resolver)
        with caplog.at_level(logging.INFO, "faasbase.fetching"), pytest.raises(FetchError) as failed:
            await fetcher.fetch(f"http://inside.example/?{CANARY}")
    (line,) = [record.getMessage() for record in caplog.records]
    assert "http://inside.example: 10.20.30.40 is refused (private)" in line
    assert CANARY not in line
    assert "10.20.30.40" not in str(failed.value.body())


def test_settings_make_the_policy() -> None:
    policy = load_settings(
        {
            "FETCH_ALLOW_HOSTS": "Images.example, *.cdn.example,[::1]",
            "FETCH_ALLOW_RANGES": "10.0.0.0/8,127.0.0.1,fd00::/8",
            "FETCH_DENY_RANGES": "2600:1f14::/36",
            "FETCH_PORTS": "80,443,8000-8999",
            "FETCH_TIMEOUT": "1m",
            "FETCH_MAX_BYTES": "1000",
            "FETCH_MAX_REDIRECTS": "0",
            "FETCH_ALLOW_DOWNGRADE": "true",
            "FETCH_PROPAGATE_TRACE": "true",
        }
    ).fetching
    assert policy == FetchPolicy(
        allow_hosts=("images.example", "*.cdn.example", "[::1]"),
        allow_ranges=(ip_network("10.0.0.0/8"), ip_network("127.0.0.1"), ip_network("fd00::/8")),
        deny_ranges=(ip_network("2600:1f14::/36"),),
        ports=(range(80, 81), range(443, 444), range(8000, 9000)),
        timeout_seconds=60.0,
        max_bytes=1000,
        max_redirects=0,
        allow_downgrade=True,
        propagate_trace=True,
    )
    assert load_settings({}).fetching == FetchPolicy()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FETCH_ALLOW_HOSTS", "http://canary.example"),
        ("FETCH_ALLOW_HOSTS", "*"),
        ("FETCH_ALLOW_HOSTS", "canary.*"),
        ("FETCH_ALLOW_RANGES", "10.0.0.1/8"),
        ("FETCH_ALLOW_RANGES", "canary"),
        ("FETCH_DENY_RANGES", "canary"),
        ("FETCH_PORTS", "0"),
        ("FETCH_PORTS", "90-80"),
        ("FETCH_PORTS", "70000"),
        ("FETCH_PORTS", ","),
        ("FETCH_TIMEOUT", "0"),
        ("FETCH_MAX_BYTES", "0"),
        ("FETCH_MAX_REDIRECTS", "-1"),
    ],
)
def test_bad_setting_stops_the_start_by_name(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=name) as refused:
        load_settings({name: value})
    assert "canary" not in str(refused.value)


async def test_nothing_is_fetched_where_no_fetcher_is_active() -> None:
    with pytest.raises(RuntimeError, match="no fetcher is active"):
        await fetch("http://example.com/")


async def test_bad_url_is_told_without_repeating_it(server: HostileServer) -> None:
    with pytest.raises(BadUrlError) as refused:
        await fetch(f"http://user:{CANARY}@example.com/")
    assert CANARY not in refused.value.detail + refused.value.reason


def test_settings_bring_neither_parser_nor_tls() -> None:
    """A function that fetches nothing does not pay for it."""
    program = "import faasbase.settings, faasbase.fetching.current, sys; print(*sys.modules)"
    environment = {"PYTHONPATH": str(BASE)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert not {"h11", "ssl", "asyncio", "faasbase.fetching.fetcher"} & set(run.stdout.split())
    assert "faasbase.fetching.current" in run.stdout

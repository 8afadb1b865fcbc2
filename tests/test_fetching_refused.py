"""What may not be fetched is not: over a hundred spellings of inside addresses, by themselves and behind redirects."""

from __future__ import annotations

from collections.abc import AsyncIterator
from ipaddress import ip_address, ip_network

import pytest

from faasbase.fetching import (
    AddressRefusedError,
    BadUrlError,
    Fetcher,
    FetchError,
    FetchPolicy,
    RedirectError,
    UnreachableError,
)
from faasbase.fetching.addresses import refusal
from faasbase.fetching.urls import read_url
from tests.hostile_http import HostileServer, answer, hostile_server, redirect
from tests.name_server import DnsResolver, Zone, name_server

pytestmark = pytest.mark.anyio

ADDRESSES = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "100.127.255.255",
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "192.0.2.1",
    "198.51.100.1",
    "203.0.113.1",
    "198.18.0.1",
    "198.19.255.255",
    "192.88.99.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[0000:0000:0000:0000:0000:0000:0000:0001]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::FFFF:A9FE:A9FE]",
    "[::ffff:0:127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::169.254.169.254]",
    "[64:ff9b:1::10.0.0.1]",
    "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]",
    "[2001:0:7f00:1::]",
    "[2001:0:4136:e378:8000:63bf:3fff:fdd2]",
    "[2001:db8::1]",
    "[2001:2::1]",
    "[2001:20::1]",
    "[3fff::1]",
    "[fe80::1]",
    "[fec0::1]",
    "[fc00::1]",
    "[fd00:ec2::254]",
    "[fd20:ce::254]",
    "[ff02::1]",
    "[100::1]",
    "[5f00::1]",
    "[2606:4700::5efe:127.0.0.1]",
]
"""Addresses in their usual form that nobody outside may reach."""

ODD_HOSTS = [
    "2130706433",
    "017700000001",
    "0177.0.0.1",
    "0177.0.0.01",
    "0x7f000001",
    "0x7f.0.0.1",
    "0X7F.1",
    "127.1",
    "127.0.1",
    "127.0.0.01",
    "127.0.0.1.",
    "127.0.0.256",
    "127.0.0.1.1",
    "0",
    "0x",
    "4294967296",
    "127.0.0.0x1",
    "１２７.０.０.１",
    "127。0。0。1",
    "127．0．0．1",
    "①②⑦.⓪.⓪.①",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "ｌｏｃａｌｈｏｓｔ",
    "localhost.",
    "localho\u00adst",
    "local\u200bhost",
    "127.0.0.1%00",
    "%31%32%37.0.0.1",
    "%6cocalhost",
    "127.0.0.1%2f.example.com",
    "[::1%25lo]",
    "[fe80::1%eth0]",
    "[::1",
    "::1",
    "[::1]x",
    "[127.0.0.1]",
    "[v1.127.0.0.1]",
    "user@127.0.0.1",
    "example.com@127.0.0.1",
    "example.com:80@127.0.0.1",
    "127.0.0.1@example.com",
    "example.com%40127.0.0.1",
    "127.0.0.1\\@example.com",
    "example.com\\.127.0.0.1",
    "-a.example.com",
    "a..example.com",
    ".example.com",
    "",
    "a" * 64 + ".com",
    ".".join(["a" * 60] * 5),
    "stra\u00dfe.example",
    "ex\udce9.example",
]
ODD_URLS = [
    "",
    "127.0.0.1",
    "//127.0.0.1/",
    "http:/127.0.0.1/",
    "http:127.0.0.1",
    "http:///127.0.0.1/",
    "http:\\\\127.0.0.1\\",
    "http://127.0.0.1:0/",
    "http://127.0.0.1:65536/",
    "http://127.0.0.1:080/",
    "http://127.0.0.1:/",
    "http://127.0.0.1:٨٠/",
    "http://127.0.0.1: 80/",
    "http://127.0.0.1:+80/",
    "http://127.0.0.1:80:80/",
    " http://127.0.0.1/",
    "http://127.0.0.1/ ",
    "ht\ttp://127.0.0.1/",
    "http://127.0\n.0.1/",
    "http://example.com\r\nHost: 127.0.0.1/",
    "http://example.com/\x00",
    "http://example.com/a b",
    "http://example.com/\u3000",
    "http://example.com/" + "a" * 3000,
    "file:///etc/passwd",
    "ftp://127.0.0.1/",
    "gopher://127.0.0.1:6379/_INFO",
    "dict://127.0.0.1:6379/info",
    "ldap://127.0.0.1/",
    "unix:///var/run/docker.sock",
    "data:text/plain,hello",
    "jar:http://127.0.0.1!/",
    "javascript:alert(1)",
    "httpx://127.0.0.1/",
    "http+unix://%2fvar%2frun%2fdocker.sock/",
]
NAMES = {
    "localhost__example": [["127.0.0.1"]],
    "v6__example": [["::1"]],
    "mapped__example": [["::ffff:a00:1"]],
    "metadata__example": [["169.254.169.254"]],
    "mixed__example": [["93.184.215.14", "127.0.0.1"]],
    "mixed6__example": [["93.184.215.14", "fd00::1"]],
    "last__example": [[*(f"93.184.215.{n}" for n in range(30)), "10.0.0.1"]],
    "xn--bcher-kva__example": [["192.168.0.1"]],
}
"""Hosts whose names say nothing of where they lead."""


@pytest.fixture
async def canary() -> AsyncIterator[HostileServer]:
    """A server inside, which nobody may reach."""
    async with hostile_server("127.0.0.1") as server:
        yield server
        assert server.connections == 0


@pytest.fixture(scope="module")
def names() -> object:
    with name_server(**NAMES) as served:
        yield served


def fetcher_of(resolver: DnsResolver, *servers: HostileServer, ranges: tuple[str, ...] = ()) -> Fetcher:
    """Return a fetcher for the ports of *servers* and the usual ones."""
    ports = tuple(range(port, port + 1) for port in (80, 443, *(server.port for server in servers)))
    return Fetcher(FetchPolicy(ports=ports, allow_ranges=tuple(map(ip_network, ranges))), resolver=resolver)


@pytest.mark.parametrize("host", ADDRESSES)
async def test_inside_address_is_refused(host: str, canary: HostileServer, names: tuple[Zone, DnsResolver]) -> None:
    with pytest.raises(AddressRefusedError) as refused:
        await fetcher_of(names[1], canary).fetch(f"http://{host}:{canary.port}/")
    assert refused.value.status == 403
    assert host.strip("[]").lower() not in refused.value.detail


@pytest.mark.parametrize("host", ODD_HOSTS)
async def test_odd_spelling_of_a_host_is_refused(
    host: str, canary: HostileServer, names: tuple[Zone, DnsResolver]
) -> None:
    with pytest.raises(BadUrlError) as refused:
        await fetcher_of(names[1], canary).fetch(f"http://{host}:{canary.port}/")
    assert refused.value.status == 422


@pytest.mark.parametrize("url", ODD_URLS)
async def test_odd_url_is_refused(url: str, names: tuple[Zone, DnsResolver]) -> None:
    with pytest.raises(BadUrlError):
        await fetcher_of(names[1]).fetch(url)


@pytest.mark.parametrize("name", [*(name.replace("__", ".") for name in NAMES), "BÜCHER.example", "Localhost.EXAMPLE"])
async def test_name_that_leads_inside_is_refused(
    name: str, canary: HostileServer, names: tuple[Zone, DnsResolver]
) -> None:
    """One address that may not be reached is enough, whatever the others are."""
    with pytest.raises(AddressRefusedError):
        await fetcher_of(names[1], canary).fetch(f"http://{name}:{canary.port}/")


@pytest.mark.parametrize("host", [*ADDRESSES, *ODD_HOSTS[:20], "localhost.example", "mixed.example"])
async def test_redirect_inside_is_refused(host: str, names: tuple[Zone, DnsResolver]) -> None:
    """A chain of two begins at an address that was opened, and would end at one that was not."""
    async with hostile_server("127.0.0.2") as open_server, hostile_server("127.0.0.1") as closed:
        open_server.paths["/"] = redirect("/second")
        open_server.paths["/second"] = redirect(f"http://{host}:{closed.port}/")
        with pytest.raises((AddressRefusedError, RedirectError)):
            await fetcher_of(names[1], open_server, closed, ranges=("127.0.0.2",)).fetch(f"{open_server.url}/")
        assert (len(open_server.asked), closed.connections) == (2, 0)


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "gopher://127.0.0.2/", "http://", "//", "http://a b/", "\\\\x"]
)
async def test_redirect_to_what_is_no_url_is_a_bad_answer(location: str, names: tuple[Zone, DnsResolver]) -> None:
    async with hostile_server("127.0.0.2") as server:
        server.paths["/"] = redirect(location)
        with pytest.raises(RedirectError) as failed:
            await fetcher_of(names[1], server, ranges=("127.0.0.2",)).fetch(server.url)
    assert failed.value.status == 502


async def test_name_is_looked_up_once_and_that_answer_is_used() -> None:
    """A second answer, which a check and a connection of their own would have fallen for, is never asked for."""
    with name_server(rebinding__example=[["127.0.0.2"], ["127.0.0.1"]]) as (zone, resolver):
        async with hostile_server("127.0.0.2") as good, hostile_server("127.0.0.1", port=good.port) as inside:
            good.paths["/"] = answer(b"outside")
            fetcher = fetcher_of(resolver, good, ranges=("127.0.0.2",))
            fetched = await fetcher.fetch(f"http://rebinding.example:{good.port}/")
            assert (fetched.body, zone.asked, inside.connections) == (b"outside", ["rebinding.example"], 0)
            assert good.asked[0].headers["host"] == f"rebinding.example:{good.port}"
            with pytest.raises(AddressRefusedError):
                await fetcher.fetch(f"http://rebinding.example:{good.port}/")
            assert inside.connections == 0


async def test_name_is_checked_again_behind_a_redirect_to_itself() -> None:
    with name_server(rebinding__example=[["127.0.0.2"], ["127.0.0.1"]]) as (_, resolver):
        async with hostile_server("127.0.0.2") as good, hostile_server("127.0.0.1", port=good.port) as inside:
            good.paths["/"] = redirect("/again")
            with pytest.raises(AddressRefusedError):
                await fetcher_of(resolver, good, ranges=("127.0.0.2",)).fetch(f"http://rebinding.example:{good.port}/")
            assert (len(good.asked), inside.connections) == (1, 0)


async def test_unknown_name_is_unreachable(names: tuple[Zone, DnsResolver]) -> None:
    with pytest.raises(UnreachableError) as failed:
        await fetcher_of(names[1]).fetch("http://nothing.example/")
    assert failed.value.status == 502


async def test_systems_own_resolver_is_checked_as_well(canary: HostileServer) -> None:
    fetcher = Fetcher(FetchPolicy(ports=(range(1, 65536),)))
    try:
        with pytest.raises(AddressRefusedError):
            await fetcher.fetch(f"http://localhost:{canary.port}/")
    finally:
        fetcher.close()


@pytest.mark.parametrize("port", [22, 25, 6379, 8080])
async def test_other_ports_are_refused(port: int, names: tuple[Zone, DnsResolver]) -> None:
    with pytest.raises(AddressRefusedError):
        await fetcher_of(names[1]).fetch(f"http://93.184.215.14:{port}/")


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://images.example/", True),
        ("http://cdn.images.example/", True),
        ("http://other.example/", False),
        ("http://evil-images.example/", False),
        ("http://images.example.evil.example/", False),
        ("http://127.0.0.2/", False),
    ],
)
async def test_only_listed_hosts_are_fetched_from(url: str, allowed: bool, names: tuple[Zone, DnsResolver]) -> None:
    """A listed host that nobody knows gets as far as the name server, another one does not."""
    policy = FetchPolicy(allow_hosts=("images.example", "*.images.example"), allow_ranges=(ip_network("127.0.0.0/8"),))
    with pytest.raises(FetchError) as failed:
        await Fetcher(policy, resolver=names[1]).fetch(url)
    assert failed.value.status == (502 if allowed else 403)


@pytest.mark.parametrize(
    ("address", "opened", "refused"),
    [
        ("93.184.215.14", "", False),
        ("2606:4700::1", "", False),
        ("10.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.4", True),
        ("::1", "::1", False),
        ("::ffff:10.1.2.3", "10.0.0.0/8", True),
        ("::ffff:10.1.2.3", "::ffff:0:0/96", True),
        ("64:ff9b::a01:203", "64:ff9b::/96", True),
        ("64:ff9b::5db8:d70e", "64:ff9b::/96", False),
        ("64:ff9b::5db8:d70e", "", True),
        ("169.254.169.254", "169.254.0.0/16", True),
        ("169.254.169.254", "0.0.0.0/0", True),
        ("169.254.169.254", "169.254.169.254", False),
        ("64:ff9b::a9fe:a9fe", "64:ff9b::/96", True),
        ("169.254.170.23", "169.254.0.0/16", True),
        ("169.254.0.23", "169.254.0.0/16", True),
        ("192.0.0.192", "192.0.0.0/24", True),
        ("fd00:ec2::23", "fd00::/8", True),
    ],
)
def test_range_opens_what_it_names_and_nothing_behind_it(address: str, opened: str, refused: bool) -> None:
    ranges = (ip_network(opened),) if opened else ()
    assert bool(refusal(ip_address(address), FetchPolicy(allow_ranges=ranges))) is refused


def test_denied_range_is_closed_though_it_is_public() -> None:
    policy = FetchPolicy(deny_ranges=(ip_network("93.184.0.0/16"),))
    assert refusal(ip_address("93.184.215.14"), policy)
    assert not refusal(ip_address("93.185.0.1"), policy)


def test_query_of_a_target_is_not_shown() -> None:
    assert "canary" not in repr(read_url("https://example.com/?signature=canary", 2048))

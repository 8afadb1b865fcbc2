"""What may be fetched: public addresses over HTTP and HTTPS, unless a setting says otherwise."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeVar

from ..environment import Environment
from ..errors import SettingError

Network = IPv4Network | IPv6Network
T = TypeVar("T", int, float)

_PORTS = re.compile(r"([1-9]\d{0,4})(?:-([1-9]\d{0,4}))?", re.ASCII)
_HOST = re.compile(r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchPolicy:
    """The bounds of every fetch; durations are in seconds, sizes in bytes."""

    allow_hosts: tuple[str, ...] = ()
    """``FETCH_ALLOW_HOSTS``: the only hosts there are, each in full or as ``*.suffix``; empty is every host."""
    allow_ranges: tuple[Network, ...] = ()
    """``FETCH_ALLOW_RANGES``: addresses that are open beside the public ones (``10.0.0.0/8,127.0.0.1``)."""
    deny_ranges: tuple[Network, ...] = ()
    """``FETCH_DENY_RANGES``: public addresses that are closed, such as those a cluster gives its own pods."""
    ports: tuple[range, ...] = (range(80, 81), range(443, 444))
    """``FETCH_PORTS`` (``80,443,8000-8999``): what strangers may not do from here is to scan others' ports."""
    timeout_seconds: float = 10.0
    """``FETCH_TIMEOUT``: all of a fetch, redirects included; the call's own deadline may be nearer."""
    connect_seconds: float = 3.0
    """To look a name up, and to connect to one of its addresses, handshake included."""
    read_seconds: float = 5.0
    """The longest silence in an answer."""
    max_bytes: int = 20 * 1024 * 1024
    """``FETCH_MAX_BYTES``: of an answer's body, as sent and as unpacked."""
    max_header_bytes: int = 32 * 1024
    max_headers: int = 100
    max_url_chars: int = 2048
    max_redirects: int = 5
    """``FETCH_MAX_REDIRECTS``."""
    allow_downgrade: bool = False
    """``FETCH_ALLOW_DOWNGRADE``: whether a redirect may lead from https to http."""
    propagate_trace: bool = False
    """``FETCH_PROPAGATE_TRACE``: whether strangers get the trace's ids; right where all hosts are one's own."""


def read_policy(read: Environment) -> FetchPolicy:
    """
    Return the policy that the ``FETCH_*`` settings make.

    Raises:
        SettingError: One of them cannot be used.
    """
    usual = FetchPolicy()
    return FetchPolicy(
        allow_hosts=read.parsed("FETCH_ALLOW_HOSTS", _hosts, usual.allow_hosts),
        allow_ranges=read.parsed("FETCH_ALLOW_RANGES", _ranges, usual.allow_ranges),
        deny_ranges=read.parsed("FETCH_DENY_RANGES", _ranges, usual.deny_ranges),
        ports=read.parsed("FETCH_PORTS", _ports, usual.ports),
        timeout_seconds=_above_zero("FETCH_TIMEOUT", read.seconds("FETCH_TIMEOUT", usual.timeout_seconds)),
        max_bytes=_above_zero("FETCH_MAX_BYTES", read.count("FETCH_MAX_BYTES", usual.max_bytes)),
        max_redirects=read.count("FETCH_MAX_REDIRECTS", usual.max_redirects),
        allow_downgrade=read.flag("FETCH_ALLOW_DOWNGRADE"),
        propagate_trace=read.flag("FETCH_PROPAGATE_TRACE"),
    )


def _hosts(text: str) -> tuple[str, ...]:
    hosts = _parts(text.lower())
    if not all(_HOST.fullmatch(host) for host in hosts):
        raise ValueError(
            "must be host names, without scheme and port, separated by commas; *.example.com for all below"
        )
    return hosts


def _ranges(text: str) -> tuple[Network, ...]:
    try:
        return tuple(ip_network(part) for part in _parts(text))
    except ValueError:
        raise ValueError("must be IP addresses or ranges such as 10.0.0.0/8, separated by commas") from None


def _ports(text: str) -> tuple[range, ...]:
    found = [_PORTS.fullmatch(part) for part in _parts(text)]
    ports = tuple(range(int(m[1]), int(m[2] or m[1]) + 1) for m in found if m)
    if not ports or len(ports) < len(found) or not all(len(span) > 0 and span.stop <= 65536 for span in ports):
        raise ValueError("must be ports from 1 to 65535, or ranges such as 8000-8999, separated by commas")
    return ports


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _above_zero(name: str, value: T) -> T:
    if not value > 0:
        raise SettingError(name, "must be more than zero")
    return value

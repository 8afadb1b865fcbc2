"""
Tell which IP addresses are open to strangers.

The tables are IANA's registries of special-purpose addresses (https://www.iana.org/assignments/iana-ipv4-special-registry
and iana-ipv6-special-registry).  `ipaddress` has such tables as well, but other ones in each release of Python.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from .policy import FetchPolicy, Network

Address = IPv4Address | IPv6Address

_CLOSED: dict[str, tuple[str, ...]] = {
    "unspecified or this network": ("0.0.0.0/8",),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"),
    "shared with a carrier": ("100.64.0.0/10",),
    "loopback": ("127.0.0.0/8",),
    "link-local": ("169.254.0.0/16",),
    "reserved for protocols": ("192.0.0.0/24", "192.88.99.0/24", "192.52.193.0/24", "2001::/23"),
    "anycast of one site": ("192.31.196.0/24", "192.175.48.0/24", "2620:4f:8000::/48"),
    "documentation": ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"),
    "benchmarking": ("198.18.0.0/15",),
    "multicast": ("224.0.0.0/4",),
    "reserved or broadcast": ("240.0.0.0/4",),
    "6to4": ("2002::/16",),
}
_RANGES = tuple((ip_network(text), name) for name, texts in _CLOSED.items() for text in texts)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
"""All of IPv6 that is assigned to anyone who serves the public; what lies outside is closed without a table."""
_METADATA = frozenset(
    map(
        ip_address,
        (
            *("169.254.169.254", "169.254.170.2", "169.254.170.23", "169.254.0.23", "192.0.0.192"),
            *("100.100.100.200", "168.63.129.16", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254"),
        ),
    )
)
"""Where clouds hand out credentials; one of them, Azure's, is a public address."""
_IPV4_AT_THE_END = tuple(
    map(IPv6Network, ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48"))
)
"""Compatible, mapped, translated (SIIT), and the two prefixes of NAT64."""
_LOOPBACK_AND_ANY = (IPv6Address("::1"), IPv6Address("::"))
_ISATAP = (0x00005EFE, 0x02005EFE)


def refusal(address: Address, policy: FetchPolicy) -> str | None:
    """
    Return why nothing may be fetched from *address*, or None where it may.

    A range that the policy opens does not open what it merely contains: credentials of clouds have to be named as
    single addresses, and an IPv4 address inside an IPv6 one has to be open itself.
    """
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return "has a scope id"
    if _within(address, policy.deny_ranges):
        return "denied by setting"
    if address in _METADATA:
        named = any(address in network and network.num_addresses == 1 for network in policy.allow_ranges)
        return None if named else "metadata of a cloud"
    inner = [refusal(inside, policy) for inside in _embedded(address)]
    if _within(address, policy.allow_ranges):
        return next(filter(None, inner), None)
    return _closed(address) or next(filter(None, inner), None)


def _closed(address: Address) -> str | None:
    if address.version == 6 and address not in _GLOBAL_UNICAST:
        return "not global"
    return next((name for network, name in _RANGES if address in network), None)


def _within(address: Address, ranges: Iterable[Network]) -> bool:
    return any(address in network for network in ranges)


def _embedded(address: Address) -> list[IPv4Address]:
    """Return the IPv4 addresses that *address* may be translated to, or tunnelled to, on its way."""
    if isinstance(address, IPv4Address) or address in _LOOPBACK_AND_ANY:
        return []
    whole = int(address)
    found = [IPv4Address(whole & 0xFFFFFFFF)] if _within(address, _IPV4_AT_THE_END) else []
    if address.sixtofour is not None:
        found.append(address.sixtofour)
    if address.teredo is not None:
        found.extend(address.teredo)
    if whole >> 32 & 0xFFFFFFFF in _ISATAP:
        found.append(IPv4Address(whole & 0xFFFFFFFF))
    return found

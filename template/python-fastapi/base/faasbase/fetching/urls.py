"""
Read a URL in the one spelling that is taken.

Attacks on fetchers live on addresses that two parsers read differently, so there is one reader here, it knows one form,
and everything else is refused: what is fetched is put together from the parts that were checked.
"""

import re
from dataclasses import dataclass, field
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from urllib.parse import quote, urljoin

from .addresses import Address
from .errors import AddressRefusedError, BadUrlError
from .policy import FetchPolicy

_URL = re.compile(r"(https?)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#.*)?", re.IGNORECASE)
_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:]*)(?::([1-9][0-9]{0,4}))?", re.ASCII)
_LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?", re.ASCII)
# Browsers' rule (https://url.spec.whatwg.org/#ends-in-a-number-checker): such a host is an IPv4 address or nothing.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_PORTS = {"http": 80, "https": 443}
_MAX_HOST_CHARS = 253
# What RFC 3986 lets stand in a path or query, and a few more that servers take; quoting leaves it as it is.
_KEPT = "!$%&'()*+,-./:;=?@_~[]|^{}`\"<>"
_PARAMETER = re.compile(r"([^=&]*=)?[^&]+")


@dataclass(frozen=True, slots=True)
class Target:
    """Where one request goes."""

    scheme: str
    host: str
    """In lower case and ASCII; of an IPv6 address without brackets."""
    port: int
    path: str = field(repr=False)
    """Path and query as they are sent; signatures and tokens stand in it."""
    address: Address | None = None
    """The host, where it is an IP address."""

    @property
    def origin(self) -> tuple[str, str, int]:
        """What must be the same for credentials to be sent again (RFC 6454)."""
        return self.scheme, self.host, self.port

    @property
    def authority(self) -> str:
        """Host, and port if it is not the scheme's own, as the ``Host`` header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"

    @property
    def shown(self) -> str:
        """The URL for spans, without the values of its query, which are where signatures and tokens stand."""
        path, mark, query = self.path.partition("?")
        return f"{self.scheme}://{self.authority}{path}{mark}{_PARAMETER.sub(_redacted, query)}"


def read_url(text: str, max_chars: int) -> Target:
    """
    Return where *text* leads.

    Raises:
        BadUrlError: It is no http or https URL, has another spelling than the usual one, or more than *max_chars*.
    """
    _check_characters(text, max_chars)
    match = _URL.fullmatch(text)
    if match is None:
        raise BadUrlError("it must start with http:// or https://")
    scheme, authority, path, query = match.groups()
    scheme = scheme.lower()
    host, port, address = _read_authority(authority, scheme)
    path = quote((path or "/") + ("" if query is None else f"?{query}"), safe=_KEPT)
    if len(path) > max_chars * 3:
        raise BadUrlError("it is too long")
    return Target(scheme, host, port, path, address)


def read_location(target: Target, location: str, max_chars: int) -> Target:
    """Return where *target* leads on to; raises as `read_url` does."""
    _check_characters(location, max_chars)
    try:
        joined = urljoin(target.url, location)
    except ValueError:
        raise BadUrlError("it cannot be resolved") from None
    return read_url(joined, max_chars)


def check_target(target: Target, policy: FetchPolicy) -> None:
    """
    Check host and port against *policy*; the addresses come later, when the host is looked up.

    Raises:
        AddressRefusedError: One of them may not be fetched from.
    """
    if not any(target.port in ports for ports in policy.ports):
        raise AddressRefusedError(f"port {target.port} is not among FETCH_PORTS")
    shown = f"[{target.host}]" if ":" in target.host else target.host
    if policy.allow_hosts and not any(_matches(shown, pattern) for pattern in policy.allow_hosts):
        raise AddressRefusedError(f"host {shown} is not among FETCH_ALLOW_HOSTS")


def _redacted(parameter: re.Match[str]) -> str:
    return f"{parameter[1] or ''}REDACTED"


def _check_characters(text: str, max_chars: int) -> None:
    if len(text) > max_chars:
        raise BadUrlError(f"it has more than {max_chars} characters")
    if any(char <= " " or char in "\\\x7f" or "\ud800" <= char <= "\udfff" or char.isspace() for char in text):
        raise BadUrlError("it has a blank, a backslash or a control character in it")


def _read_authority(authority: str, scheme: str) -> tuple[str, int, Address | None]:
    if "@" in authority:
        raise BadUrlError("it must not hold a user name or password")
    match = _AUTHORITY.fullmatch(authority)
    if match is None or not match[1]:
        raise BadUrlError("its host or port is not well formed")
    port = int(match[2]) if match[2] else _PORTS[scheme]
    if port > 65535:
        raise BadUrlError("its port is over 65535")
    host, address = _read_host(match[1])
    return host, port, address


def _read_host(text: str) -> tuple[str, Address | None]:
    try:
        if text.startswith("["):
            # A scope id belongs to this machine's own interfaces.
            v6 = IPv6Address(text[1:-1] if "%" not in text else "")
            return str(v6), v6
        host = _ascii(text).lower()
        labels = host.split(".")
        if _NUMBER.fullmatch(labels[-1]):
            v4 = IPv4Address(host)
            return str(v4), v4
    except (AddressValueError, UnicodeError):
        raise BadUrlError("its host is not spelt as an IP address or a host name usually is") from None
    if len(host) > _MAX_HOST_CHARS or not all(_LABEL.fullmatch(label) for label in labels):
        raise BadUrlError("its host is not well formed")
    return host, None


def _ascii(host: str) -> str:
    """Return *host* as DNS knows it; UnicodeError where other readers may take it for another host."""
    if host.isascii():
        return host
    if len(host) > _MAX_HOST_CHARS:
        raise UnicodeError("too long")
    encoded = host.encode("idna").decode("ascii")
    # Wide digits, other dots, ligatures and sharp s all become something else on the way.
    if encoded.encode("ascii").decode("idna") != host.lower():
        raise UnicodeError("not in the form that it has after encoding")
    return encoded


def _matches(host: str, pattern: str) -> bool:
    return host.endswith(pattern[1:]) and len(host) >= len(pattern) if pattern.startswith("*.") else host == pattern

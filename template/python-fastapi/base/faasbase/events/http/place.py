"""Which function, or other server, a URL means that events are posted to."""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote

from ...backends import UrlOptions, split_url
from ...errors import SettingError
from ...secrets import Secret, hide
from ..places import secret_option

_PORTS = {"http": 80, "https": 443}
_NAME = r"[A-Za-z0-9][-A-Za-z0-9_.]{0,252}"
_FUNCTION = re.compile(rf"((?:/[^?]*)?/(?:async-)?function/)({_NAME})(.*)")
_PATH = re.compile(r"[!-~]*")
_OPTIONS = frozenset({"username", "password_secret", "ca_secret"})
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}")


@dataclass(frozen=True, slots=True)
class HttpPlace:
    """Where messages are posted to, and as whom."""

    scheme: str
    host: str
    """Of an IPv6 address without brackets."""
    port: int
    path: str
    username: str | None = None
    given_password: str | None = field(default=None, repr=False)
    """The URL's own."""
    password: Secret | None = None
    """The secret that holds the password; read again when it changes."""
    ca: Secret | None = None
    """Certificates (PEM) that are trusted beside the system's."""
    setting: str = "PUBLISH_URL"

    @property
    def authority(self) -> str:
        """Host, and port if it is not the scheme's own, as the ``Host`` header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def name(self) -> str:
        """The function's name behind a gateway, else the server: a path may be a token, as those of webhooks are."""
        match = _FUNCTION.fullmatch(self.path)
        return match[2] if match else f"{self.scheme}://{self.authority}"

    def credentials(self) -> str | None:
        """
        Return user and password as Basic authentication shows them, as they are now; None where there is no user.

        Raises:
            SecretMissingError: There is no password.
        """
        if self.username is None:
            return None
        password = self.password.reveal().get_secret_value() if self.password else self.given_password or ""
        return b64encode(f"{self.username}:{password}".encode()).decode("ascii")

    def path_of(self, function: str) -> str:
        """
        Return the path that leads to *function* of the same gateway.

        Raises:
            ValueError: That is no name of a function, or the place is behind no gateway.
        """
        match = _FUNCTION.fullmatch(self.path)
        if match is None or not re.fullmatch(_NAME, function):
            raise ValueError("to= must be the name of a function, and PUBLISH_URL that of one behind the same gateway")
        return f"{match[1]}{function}{match[3]}"


def http_place(setting: str, url: str) -> HttpPlace:
    """
    Read *url*, the value of *setting*: ``http[s]://[user@]host[:port]/async-function/<name>[/path]``.

    Options are ``username=``, ``password_secret=`` and ``ca_secret=``, as those of Redis.

    Raises:
        SettingError: It cannot be used.  Nothing of it is shown.
        SecretMissingError: A secret that it names is not there.
    """
    parts = split_url(setting, url)
    if parts.scheme not in _PORTS or not _HOST.fullmatch(parts.hostname or ""):
        raise SettingError(
            setting, "must be a URL with a host, such as http://gateway.openfaas:8080/async-function/name"
        )
    if not _PATH.fullmatch(parts.path) or parts.fragment:
        raise SettingError(setting, "must be a URL of visible ASCII characters and without a fragment")
    options = UrlOptions.of(setting, url, _OPTIONS)
    place = HttpPlace(
        parts.scheme,
        parts.hostname or "",
        _port(setting, parts),
        parts.path or "/",
        options.texts.get("username") or (unquote(parts.username) if parts.username else None),
        unquote(parts.password) if parts.password else None,
        secret_option(setting, options, "password_secret"),
        secret_option(setting, options, "ca_secret"),
        setting,
    )
    _check(place)
    return place


def _port(setting: str, parts: SplitResult) -> int:
    try:
        return parts.port or _PORTS[parts.scheme]
    except ValueError:
        # Its own message repeats what stands there, which may be the end of a password with a slash.
        raise SettingError(setting, "must be a URL with a port of digits") from None


def _check(place: HttpPlace) -> None:
    """Refuse what leaves open who asks."""
    if place.given_password and place.password:
        raise SettingError(place.setting, "takes a password or the name of a secret, not both")
    if (place.given_password or place.password) and not place.username:
        raise SettingError(place.setting, "has a password and no user")
    if ":" in (place.username or ""):
        raise SettingError(place.setting, "has a user with a colon, which Basic authentication has no form for")
    if place.ca and place.scheme != "https":
        raise SettingError(place.setting, "option ca_secret needs https:")
    if place.given_password:
        hide(place.given_password)

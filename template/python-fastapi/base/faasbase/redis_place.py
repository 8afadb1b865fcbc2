"""Which Redis a URL means, and as whom: ``redis://user@host:6379/0?password_secret=cache-password``."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote

from .backends import UrlOptions, split_url
from .errors import SettingError
from .secret_files import secret_name
from .secrets import Secret, hide, required

PLACE_OPTIONS = frozenset({"username", "password_secret", "ca_secret"})
DEFAULT_PORT = 6379
_MAX_DATABASE = 9999


@dataclass(frozen=True, slots=True)
class Place:
    """A server, a database on it and who asks; equal ones share their connections."""

    host: str
    port: int = DEFAULT_PORT
    database: int = 0
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_secret: str | None = None
    """Name of the secret that holds the password; read again when it changes."""
    ca_secret: str | None = None
    """Name of the secret with the certificates (PEM) that the server's own must be signed by."""
    setting: str = field(default="REDIS_URL", compare=False)

    def secret(self, name: str | None) -> Secret | None:
        """Return the handle of the secret *name*."""
        return Secret(name, setting=self.setting) if name else None

    def check(self) -> None:
        """
        Make sure that the secrets are there; a missing one stops the start of a function.

        Raises:
            SecretMissingError: One is not.
        """
        for name in (self.password_secret, self.ca_secret):
            if handle := self.secret(name):
                required(handle)


def place_of(setting: str, url: str, also: Set[str] = frozenset()) -> tuple[Place, dict[str, str]]:
    """
    Read *url*, the value of *setting*, into a place and those of its options that are in *also*.

    Raises:
        SettingError: The URL is of another kind or has an unknown option.  Nothing of it is shown.
    """
    parts = split_url(setting, url)
    if parts.scheme not in ("redis", "rediss"):
        raise SettingError(setting, "must be a URL that starts with redis: or rediss:")
    read = UrlOptions.of(setting, url, PLACE_OPTIONS | also)
    options = read.texts
    password = unquote(parts.password) if parts.password else None
    if password and "password_secret" in options:
        raise SettingError(setting, "takes a password or the name of a secret, not both")
    if "ca_secret" in options and parts.scheme != "rediss":
        raise SettingError(setting, "option ca_secret needs rediss:")
    if password:
        hide(password)
    place = Place(
        host=_host(setting, parts),
        port=_port(setting, parts),
        database=_database(setting, parts.path),
        tls=parts.scheme == "rediss",
        username=options.get("username") or (unquote(parts.username) if parts.username else None),
        password=password,
        password_secret=read.parsed("password_secret", secret_name, None),
        ca_secret=read.parsed("ca_secret", secret_name, None),
        setting=setting,
    )
    return place, {name: text for name, text in options.items() if name in also}


def _host(setting: str, parts: SplitResult) -> str:
    if not parts.hostname:
        raise SettingError(setting, "must be a URL with a host")
    return parts.hostname


def _port(setting: str, parts: SplitResult) -> int:
    try:
        return parts.port or DEFAULT_PORT
    except ValueError:
        # Its own message repeats what stands there, which may be the end of a password with a slash.
        raise SettingError(setting, "must be a URL with a port of digits") from None


def _database(setting: str, path: str) -> int:
    number = path.strip("/") or "0"
    if not (number.isascii() and number.isdigit() and len(number) <= 4 and int(number) <= _MAX_DATABASE):
        raise SettingError(setting, "must be a URL whose path is the number of a database")
    return int(number)

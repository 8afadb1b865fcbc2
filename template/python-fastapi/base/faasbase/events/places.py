"""What the URLs of brokers and gateways have in common: options that name secrets, and servers with commas between."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, unquote

from ..backends import UrlOptions
from ..errors import SettingError
from ..secrets import Secret, required

_SERVER = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?", re.ASCII)


def secret_option(setting: str, options: UrlOptions, name: str) -> Secret | None:
    """
    Return the secret that the option *name* names; None where it is not given.

    Raises:
        SettingError: It is no name of a secret.
        SecretMissingError: There is no such secret.
    """

    def named(text: str) -> Secret | None:
        return required(Secret(text, setting=setting))

    return options.parsed(name, named, None)


def user_and_servers(setting: str, parts: SplitResult, default_port: int) -> tuple[str, tuple[str, ...]]:
    """
    Return the user of ``user@host[:port][,host[:port]…]``, empty where there is none, and the servers as ``host:port``.

    Raises:
        SettingError: There is a password, or something else than hosts and ports.
    """
    user, _, hosts = parts.netloc.rpartition("@")
    if ":" in user:
        raise SettingError(setting, "must not hold a password; the option password_secret names the secret that does")
    return unquote(user), tuple(_server(setting, host, default_port) for host in hosts.split(","))


def _server(setting: str, text: str, default_port: int) -> str:
    match = _SERVER.fullmatch(text)
    port = int(match[2] or default_port) if match else 0
    if match is None or not 0 < port < 65536:
        raise SettingError(setting, "must be a URL with host:port, and commas between several")
    return f"{match[1]}:{port}"

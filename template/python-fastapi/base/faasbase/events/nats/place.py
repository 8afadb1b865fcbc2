"""Which NATS a URL means, and as whom: ``nats://user@host:4222,host:4222/ORDERS?durable=notifier&password_secret=…``."""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from urllib.parse import unquote

from ...backends import UrlOptions, split_url
from ...errors import SettingError
from ...secrets import Secret
from ...settings import Settings
from ..places import secret_option, user_and_servers

DEFAULT_PORT = 4222
_LOGIN_OPTIONS = frozenset({"username", "password_secret", "token_secret", "credentials_secret"})
_PLACE_OPTIONS = _LOGIN_OPTIONS | {"tls", "ca_secret"}
# What names of streams and consumers cannot have is what their folders on the server cannot.
_NAME = re.compile(r"[^\s.*>/\\]{1,255}")
_TOKEN = r"[^\s.*>]+"  # noqa: S105 - a part of a subject
_SUBJECT = re.compile(rf"{_TOKEN}(\.{_TOKEN})*")
_FILTER = re.compile(rf"(({_TOKEN}|\*)\.)*({_TOKEN}|\*|>)")


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsPlace:
    """Servers of one cluster, who asks, and what for."""

    setting: str
    servers: tuple[str, ...]
    """``host:port`` of those to begin with."""
    name: str
    """The stream, or for publishing the subject."""
    durable: str = ""
    """The name of the consumer that all replicas share."""
    subject: str = ""
    """What the consumer takes of the stream; empty is everything."""
    tls: bool = False
    username: str | None = None
    password: Secret | None = None
    token: Secret | None = None
    credentials: Secret | None = None
    """The content of a ``.creds`` file."""
    ca: Secret | None = None
    """Certificates (PEM) that the server's own must be signed by; None is the system's list."""

    @property
    def shown(self) -> str:
        """The addresses, for messages."""
        return ", ".join(self.servers)


@dataclass(frozen=True, slots=True)
class LettersPlace:
    """The stream that keeps dead letters, and the subject that theirs begin with."""

    place: NatsPlace
    stream: str
    subject: str


def source_place(url: str, settings: Settings) -> NatsPlace:
    """
    Read *url*, one of ``EVENTS_URL``: its path is a stream, its consumer has the function's name by default.

    Raises:
        SettingError: The URL cannot be used; nothing of it is shown.
        SecretMissingError: A secret that it names is not there.
    """
    return _place("EVENTS_URL", url, frozenset({"durable", "subject"}), settings.function_name)


def subject_place(url: str) -> NatsPlace:
    """
    Read *url*, the value of ``PUBLISH_URL``: its path is the subject that events go to.

    Raises:
        SettingError: The URL cannot be used.
        SecretMissingError: A secret that it names is not there.
    """
    return _place("PUBLISH_URL", url, frozenset())


def letters_place(setting: str, url: str, settings: Settings) -> LettersPlace:
    """
    Return where dead letters are kept: in the stream that *url* names, or beside it where it is one of ``EVENTS_URL``.

    Raises:
        SettingError: The URL cannot be used.
        SecretMissingError: A secret that it names is not there.
    """
    if setting == "EVENTS_URL":
        source = source_place(url, settings)
        return LettersPlace(source, f"{source.durable}-dead-letters", f"dead-letters.{source.durable}")
    place = _place(setting, url, frozenset())
    return LettersPlace(place, place.name, f"dead-letters.{place.name}")


def is_subject(text: str) -> bool:
    """Tell whether *text* is a subject that can be published to."""
    return _SUBJECT.fullmatch(text) is not None


def _place(setting: str, url: str, also: Set[str], durable: str = "") -> NatsPlace:
    parts = split_url(setting, url)
    if parts.scheme != "nats":
        raise SettingError(setting, "must be a URL that starts with nats:")
    options = UrlOptions.of(setting, url, _PLACE_OPTIONS | also)
    user, servers = user_and_servers(setting, parts, DEFAULT_PORT)
    place = NatsPlace(
        setting=setting,
        servers=servers,
        name=_name(setting, parts.path),
        durable=_durable(setting, options.texts.get("durable", durable)),
        subject=_filter(setting, options),
        tls=options.flag("tls", False),
        username=options.texts.get("username") or user or None,
        password=secret_option(setting, options, "password_secret"),
        token=secret_option(setting, options, "token_secret"),
        credentials=secret_option(setting, options, "credentials_secret"),
        ca=secret_option(setting, options, "ca_secret"),
    )
    _check(place)
    return place


def _name(setting: str, path: str) -> str:
    name = unquote(path.removeprefix("/"))
    if setting == "PUBLISH_URL":
        if not is_subject(name):
            raise SettingError(setting, "must be a URL whose path is the subject that events go to")
    elif not _NAME.fullmatch(name):
        raise SettingError(setting, "must be a URL whose path is the name of a stream")
    return name


def _durable(setting: str, text: str) -> str:
    if setting == "EVENTS_URL" and not _NAME.fullmatch(text):
        raise SettingError(setting, "option durable must be the name of a consumer, without dots and blanks")
    return text


def _filter(setting: str, options: UrlOptions) -> str:
    subject = options.texts.get("subject", ">")
    if not _FILTER.fullmatch(subject):
        raise SettingError(setting, "option subject must be a subject, such as orders.*.created")
    return "" if subject == ">" else subject


def _check(place: NatsPlace) -> None:
    """Refuse what leaves open who asks, or would send a secret in the clear."""
    if bool(place.username) != bool(place.password):
        raise SettingError(place.setting, "signs in with both of a user and the option password_secret")
    if sum(secret is not None for secret in (place.password, place.token, place.credentials)) > 1:
        raise SettingError(place.setting, "takes one of password_secret, token_secret and credentials_secret")
    if place.ca and not place.tls:
        raise SettingError(place.setting, "option ca_secret needs tls=true")

"""Which Kafka a URL means: ``kafka://user@host:9092,host:9092/orders?group=order-worker&password_secret=…&tls=true``."""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass, replace
from urllib.parse import unquote

from ...backends import UrlOptions, split_url
from ...errors import SettingError
from ...secrets import Secret
from ...settings import Settings
from ..places import secret_option, user_and_servers

MECHANISMS = {"plain": "PLAIN", "scram-sha-256": "SCRAM-SHA-256", "scram-sha-512": "SCRAM-SHA-512"}
_DEFAULT_PORT = 9092
_ACCESS_OPTIONS = frozenset({"tls", "ca_secret", "sasl", "username", "password_secret"})
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}")
_MAX_GROUP_CHARACTERS = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaPlace:
    """A cluster, who asks, and the topics that it is asked for."""

    setting: str
    servers: tuple[str, ...]
    """``host:port`` of those to begin with; they name the others."""
    topics: tuple[str, ...]
    group: str = ""
    tls: bool = False
    mechanism: str | None = None
    """How to sign in, by Kafka's name for it; None is not to."""
    username: str = ""
    password: Secret | None = None
    ca: Secret | None = None
    """Certificates (PEM) that the broker's own must be signed by; None is the system's list."""

    @property
    def topic(self) -> str:
        """The topic, of a place that has one."""
        return self.topics[0]

    @property
    def shown(self) -> str:
        """The addresses, for messages."""
        return ", ".join(self.servers)


def source_place(url: str, settings: Settings) -> KafkaPlace:
    """
    Read *url*, one of ``EVENTS_URL``; its group is the function's name where it has none.

    Raises:
        SettingError: The URL cannot be used; nothing of it is shown.
        SecretMissingError: A secret that it names is not there.
    """
    return _place("EVENTS_URL", url, settings, {"group"})


def topic_place(setting: str, url: str, settings: Settings) -> KafkaPlace:
    """
    Read *url*, the value of *setting*, as a place with one topic and no group.

    Raises:
        SettingError: The URL cannot be used.
    """
    place = _place(setting, url, settings, frozenset())
    if len(place.topics) > 1:
        raise SettingError(setting, "must be a URL with one topic")
    return place


def dead_letter_place(url: str, settings: Settings) -> KafkaPlace:
    """
    Return where the dead letters of the source *url* go: ``DEADLETTER_URL``, or ``<group>.dead-letters`` beside it.

    Raises:
        SettingError: A URL cannot be used.
    """
    if given := settings.events.deadletter_url:
        return topic_place("DEADLETTER_URL", given, settings)
    place = source_place(url, settings)
    topic = f"{place.group}.dead-letters"
    if not _TOPIC.fullmatch(topic):
        raise SettingError(
            "EVENTS_URL", "has a group that no topic of dead letters can be named by: set DEADLETTER_URL"
        )
    return replace(place, topics=(topic,), group="")


def _place(setting: str, url: str, settings: Settings, also: Set[str]) -> KafkaPlace:
    parts = split_url(setting, url)
    if parts.scheme != "kafka":
        raise SettingError(setting, "must be a URL that starts with kafka:")
    options = UrlOptions.of(setting, url, _ACCESS_OPTIONS | also)
    user, servers = user_and_servers(setting, parts, _DEFAULT_PORT)
    place = KafkaPlace(
        setting=setting,
        servers=servers,
        topics=_topics(setting, parts.path),
        group=_group(setting, options.texts.get("group", settings.qualified_name)),
        tls=options.flag("tls", False),
        mechanism=_mechanism(setting, options),
        username=options.texts.get("username") or user,
        password=secret_option(setting, options, "password_secret"),
        ca=secret_option(setting, options, "ca_secret"),
    )
    _check(place)
    return place


def _check(place: KafkaPlace) -> None:
    """Refuse what leaves open who asks, and how."""
    given = bool(place.mechanism), bool(place.username), bool(place.password)
    if any(given) and not all(given):
        known = ", ".join(MECHANISMS)
        raise SettingError(
            place.setting, f"signs in with all of a user and the options password_secret and sasl (one of {known})"
        )
    if place.ca and not place.tls:
        raise SettingError(place.setting, "option ca_secret needs tls=true")


def _topics(setting: str, path: str) -> tuple[str, ...]:
    topics = tuple(dict.fromkeys(unquote(path.removeprefix("/")).split(",")))
    if not all(_TOPIC.fullmatch(topic) and topic not in (".", "..") for topic in topics):
        raise SettingError(setting, "must be a URL whose path is a topic, or several with commas between them")
    return topics


def _group(setting: str, text: str) -> str:
    if not text.strip() or len(text) > _MAX_GROUP_CHARACTERS or not text.isprintable():
        raise SettingError(setting, "option group must be the name of a consumer group")
    return text


def _mechanism(setting: str, options: UrlOptions) -> str | None:
    wanted = options.texts.get("sasl")
    if wanted is not None and wanted.lower() not in MECHANISMS:
        raise SettingError(setting, f"option sasl must be one of {', '.join(MECHANISMS)}")
    return MECHANISMS[wanted.lower()] if wanted is not None else None

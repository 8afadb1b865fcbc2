"""
Events over NATS JetStream: ``EVENTS_URL=nats://host:4222/STREAM?durable=…``, ``PUBLISH_URL=nats://host:4222/subject``.

At least once, in no order; the stream keeps what is not acknowledged, counts the attempts and waits with the retries.
"""

from __future__ import annotations

import sys

from ...backends import backend_of
from ...errors import missing_extra
from ...settings import Settings
from ..http.dead_letters import KEEPERS, Keeper
from ..processing import Processor
from .place import letters_place, source_place, subject_place

# For WebSockets, which are not offered here, the library imports aiohttp where it is: 0.2 s and 10 MB of each start.
_left_out = sys.modules.setdefault("aiohttp", None)  # type: ignore[arg-type]
try:
    from .connection import NatsConnection
    from .sending import NatsLetters, NatsPublisher
    from .source import NatsSource
except ModuleNotFoundError as exc:
    raise missing_extra(exc, "nats", "nats") from exc
finally:
    if _left_out is None:
        del sys.modules["aiohttp"]


def open_source(url: str, settings: Settings, processor: Processor) -> NatsSource:
    """
    Return the source of *url*, one of ``EVENTS_URL``; what is given up goes to ``DEADLETTER_URL``, or beside it.

    Raises:
        SettingError: A URL cannot be used.
        SecretMissingError: A secret that it names is not there.
    """
    place = source_place(url, settings)

    def letters(connection: NatsConnection) -> Keeper:
        if elsewhere := settings.events.deadletter_url:
            keeper: Keeper = backend_of("DEADLETTER_URL", elsewhere, KEEPERS)(elsewhere, settings)
            return keeper
        return NatsLetters(letters_place("EVENTS_URL", url, settings), settings, connection)

    return NatsSource(place, settings, processor, letters)


def open_publisher(url: str, settings: Settings) -> NatsPublisher:
    """
    Return what sends to *url*, the value of ``PUBLISH_URL``.

    Raises:
        SettingError: It cannot be used.
        SecretMissingError: A secret that it names is not there.
    """
    return NatsPublisher(subject_place(url), settings)


def open_dead_letters(url: str, settings: Settings) -> NatsLetters:
    """
    Return what keeps dead letters at *url*, the value of ``DEADLETTER_URL``.

    Raises:
        SettingError: It cannot be used.
        SecretMissingError: A secret that it names is not there.
    """
    return NatsLetters(letters_place("DEADLETTER_URL", url, settings), settings)

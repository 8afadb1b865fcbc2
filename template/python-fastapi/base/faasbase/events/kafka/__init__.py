"""``kafka://``: events from topics of Apache Kafka, and to them; the library is imported when this is."""

from __future__ import annotations

from ...errors import missing_extra
from ...settings import Settings
from ..http.dead_letters import Keeper
from ..outgoing import Publisher
from ..processing import Processor
from ..sources import Source
from .place import topic_place

try:
    from .access import KafkaAccess
    from .dead_letters import KafkaDeadLetters
    from .publisher import KafkaPublisher
    from .source import KafkaSource
except ModuleNotFoundError as exc:
    raise missing_extra(exc, "aiokafka", "kafka") from exc


def open_source(url: str, settings: Settings, processor: Processor) -> Source:
    """
    Return the source of events that *url*, one of ``EVENTS_URL``, names, for *processor*; nothing is connected yet.

    Raises:
        SettingError: The URL cannot be used.
        SecretMissingError: A secret is not there.
    """
    return KafkaSource(url, settings, processor)


def open_publisher(url: str, settings: Settings) -> Publisher:
    """
    Return what sends events to the topic of *url*, the value of ``PUBLISH_URL``; nothing is connected yet.

    Raises:
        SettingError: The URL cannot be used.
        SecretMissingError: A secret is not there.
    """
    return KafkaPublisher(url, settings)


def open_dead_letters(url: str, settings: Settings) -> Keeper:
    """
    Return what keeps dead letters in the topic of *url*, the value of ``DEADLETTER_URL``; nothing is connected yet.

    Raises:
        SettingError: The URL cannot be used.
        SecretMissingError: A secret is not there.
    """
    return KafkaDeadLetters(KafkaAccess(topic_place("DEADLETTER_URL", url, settings)))

"""Where events are fetched from: the protocol of a source, by the scheme of ``EVENTS_URL``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ..backends import backend_of
from ..errors import FaasError
from ..settings import Settings
from .handlers import EventHandler
from .processing import Processor

SOURCES: Mapping[str, str] = {
    "kafka": "faasbase.events.kafka:open_source",
    "memory": "faasbase.events.memory:open_source",
    "nats": "faasbase.events.nats:open_source",
}


class SourceError(FaasError):
    """Events can no longer be fetched, and trying again here would not help: the process ends for a new one."""


class Source(Protocol):
    """One place that events are fetched from; each method is called once, in this order."""

    async def start(self) -> None:
        """
        Connect, check what is there, and be ready to fetch; bounded by ``EVENTS_START_TIMEOUT``.

        Raises:
            SettingError: The settings are wrong (``EVENTS_URL`` and what it names), or nobody answers.
        """

    async def run(self) -> None:
        """
        Fetch and handle until `stop`, and return once nothing more is fetched; what is in flight goes on.

        Raises:
            SourceError: It cannot go on.
        """

    def stop(self) -> None:
        """Fetch nothing more and begin nothing that waits, from now on."""

    async def drain(self, seconds: float) -> None:
        """Let what is in flight end within *seconds*, cancel the rest, settle what has ended; then leave."""


def open_sources(handlers: Sequence[EventHandler], settings: Settings) -> tuple[list[Source], Processor]:
    """
    Return the sources that ``EVENTS_URL`` names, not started yet, and what handles their events.

    Raises:
        SettingError: One of the URLs cannot be used.
    """
    policy = settings.events
    processor = Processor(
        handlers,
        timeout_seconds=policy.timeout,
        ignore_unknown=policy.unknown == "ignore",
        propagated=settings.propagate_headers,
        lanes=policy.lanes,
    )
    sources = [backend_of("EVENTS_URL", url, SOURCES)(url, settings, processor) for url in policy.pulled]
    return sources, processor

"""``PUBLISH_URL=kafka://…/topic``: events that the function sends."""

from __future__ import annotations

from ...settings import Settings
from ..outgoing import Outgoing
from .access import KafkaAccess, check_topics, patiently
from .place import topic_place
from .records import PREFIX
from .sender import KafkaSender


class KafkaPublisher:
    """Sends events to the topic of *url*; those of one key keep their order."""

    system = "kafka"

    def __init__(self, url: str, settings: Settings) -> None:
        self._access = KafkaAccess(topic_place("PUBLISH_URL", url, settings))
        self.destination = self._access.place.topic
        self._sender: KafkaSender | None = None

    async def open(self) -> None:
        """
        Connect, and make sure that the topic is there; whoever calls bounds that.

        Raises:
            SettingError: The broker refuses who asks, or there is no such topic.
        """
        await self._access.reach()
        place = self._access.place
        await patiently(place.setting, lambda: check_topics(self._access, place.topics))
        self._sender = KafkaSender(self._access)
        await patiently(place.setting, self._sender.connect)

    async def send(self, message: Outgoing, destination: str) -> None:
        """
        Send *message* to the topic *destination* and return once the broker has it for good.

        Raises:
            PublishError: It is not sure to have been kept.
        """
        assert self._sender is not None  # noqa: S101 - opened before it is given to anyone
        headers = [(name, value.encode("utf-8", "replace")) for name, value in message.all_headers(PREFIX).items()]
        key = message.key
        if key is None and "partitionkey" in message.attributes:
            key = message.attributes["partitionkey"].encode("utf-8", "replace")
        await self._sender.send(destination, message.body(), key=key, headers=headers)

    async def close(self) -> None:
        """Send what is under way, within a moment, and disconnect."""
        if self._sender is not None:
            await self._sender.close()

"""Dead letters in a compacted topic: keyed by their ids, so that a repeat replaces and a tombstone removes."""

from __future__ import annotations

import asyncio

from ..dead_letters import DeadLetter
from ..outgoing import PublishError
from .access import KafkaAccess, make_topic, patiently
from .sender import KafkaSender

# A letter is its message and a little more: it must fit wherever the message did.
_CONFIG = {"cleanup.policy": "compact", "max.message.bytes": str(64 * 1024 * 1024)}
_SEND_SECONDS = 30.0


class KafkaDeadLetters:
    """Keeps letters in the topic of *access*, which is made where it does not exist."""

    def __init__(self, access: KafkaAccess) -> None:
        self._access, self._sender = access, KafkaSender(access)

    async def open(self) -> None:
        """
        Connect, and make sure that the topic is there; whoever calls bounds that.

        Raises:
            SettingError: The broker refuses.
        """
        await self._access.reach()
        setting = self._access.place.setting
        await patiently(setting, lambda: make_topic(self._access, _CONFIG))
        await patiently(setting, self._sender.connect)

    async def send(self, letter: DeadLetter) -> None:
        """
        Keep *letter*; once this returns all replicas that are in step have it.

        Raises:
            PublishError: It is not sure to be kept.
        """
        topic = self._access.place.topic
        try:
            async with asyncio.timeout(_SEND_SECONDS):
                await self._sender.send(
                    topic, letter.content, key=letter.id.encode("ascii"), headers=letter.all_headers()
                )
        except TimeoutError as exc:
            raise PublishError(f"{topic} has not acknowledged it within {_SEND_SECONDS:g} s") from exc

    async def close(self) -> None:
        """Send what is under way, within a moment, and disconnect."""
        await self._sender.close()

"""Messages on their way to Kafka: acknowledged by all replicas that are in step, and written once each."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiokafka import AIOKafkaProducer, errors

from ..outgoing import PublishError, TooLargeError
from .access import KafkaAccess, missing_topics

CLOSE_SECONDS = 3.0
_BATCH_BYTES = 256 * 1024
# What is too large is the broker's to say.
_MAX_REQUEST_BYTES = 256 * 1024 * 1024
_TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)


class KafkaSender:
    """
    Sends to the cluster of *access*; messages that are sent at a time share requests.

    Waiting is bounded by whoever sends.
    """

    def __init__(self, access: KafkaAccess) -> None:
        self._access = access
        self._producer: AIOKafkaProducer | None = None
        self._making = asyncio.Lock()
        self._known: set[str] = set()
        self._closing: set[asyncio.Task[None]] = set()

    async def send(
        self, topic: str, content: bytes, *, key: bytes | None, headers: Sequence[tuple[str, bytes]]
    ) -> None:
        """
        Send a message and return once it is acknowledged.

        Raises:
            TooLargeError: The broker, or the library, says so.
            PublishError: It is not sure to be kept.
        """
        try:
            producer = await self.connect()
            await self._know(producer, topic)
            written = await producer.send(topic, content, key=key, headers=headers)
        except errors.KafkaError as exc:
            raise _error_of(exc, f"the message for {topic} cannot be sent") from exc
        try:
            await written
        except errors.KafkaError as exc:
            self._give_up(producer)
            raise _error_of(exc, f"the message for {topic} is not acknowledged") from exc

    async def connect(self) -> AIOKafkaProducer:
        """
        Return the producer, a new one where the last could not go on.

        Raises:
            KafkaError: Nobody answers.
        """
        if (producer := self._producer) is not None:
            self._access.renew(producer.client)
            return producer
        async with self._making:
            if self._producer is None:
                self._producer = await self._made()
            return self._producer

    async def close(self) -> None:
        """Send what is under way, within a moment, and disconnect."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await _stop(producer)
        await asyncio.gather(*self._closing)

    async def _made(self) -> AIOKafkaProducer:
        producer = AIOKafkaProducer(
            **self._access.client(),
            acks="all",
            enable_idempotence=True,
            max_batch_size=_BATCH_BYTES,
            max_request_size=_MAX_REQUEST_BYTES,
        )
        try:
            await producer.start()
        except BaseException:
            await _stop(producer)
            raise
        return producer

    async def _know(self, producer: AIOKafkaProducer, topic: str) -> None:
        # The library would have the broker make what is not there, or wait for it.
        if topic in self._known:
            return
        if await missing_topics(producer.client, [topic]):
            raise PublishError(f"there is no topic {topic}")
        self._known.add(topic)

    def _give_up(self, producer: AIOKafkaProducer) -> None:
        """Let *producer* go: messages are numbered, and behind one that was refused no other is taken."""
        if producer is self._producer:
            self._producer = None
            task = asyncio.create_task(_stop(producer), name="kafka producer")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def _error_of(exc: errors.KafkaError, what: str) -> PublishError:
    kind = TooLargeError if isinstance(exc, _TOO_LARGE) else PublishError
    return kind(f"{what}: {type(exc).__name__}")


async def _stop(producer: AIOKafkaProducer) -> None:
    task = asyncio.ensure_future(producer.stop())
    _, late = await asyncio.wait({task}, timeout=CLOSE_SECONDS)
    if late:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await producer.client.close()

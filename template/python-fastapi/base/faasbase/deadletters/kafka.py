"""
Dead letters in a compacted topic of Kafka, keyed by their ids.

Of each key the newest record counts, and a tombstone says that there is no letter any more.  They are read twice: first
only which records count, so that memory holds an id and an offset for each letter and one page of contents.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, TypeAlias

from ..errors import SettingError, missing_extra
from ..events.dead_letters import DeadLetter, read_letter, redriven_headers
from ..settings import Settings
from .letters import LetterError, PlaceError, Stored, answering

try:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition, errors
except ModuleNotFoundError as exc:
    raise missing_extra(exc, "aiokafka", "kafka") from exc

from aiokafka.structs import ConsumerRecord

from ..events.kafka.access import KafkaAccess, check_topics, metadata_client, missing_topics
from ..events.kafka.place import dead_letter_place, topic_place

Message: TypeAlias = ConsumerRecord[bytes | None, bytes | None]

_PAGE_RECORDS = 500
_LOOK_MILLISECONDS = 200
_CLOSE_SECONDS = 5.0
_MAX_TOPIC_CHARACTERS = 249
# What is too large for a topic its broker says; the library's own limit is one megabyte for all of them.
_MAX_REQUEST_BYTES = 256 * 1024 * 1024
# What says nothing of the letter: the next one would fare no better.
_SILENT = (errors.KafkaTimeoutError, errors.KafkaConnectionError, errors.RequestTimedOutError)


def open_letters(setting: str, url: str, settings: Settings, timeout_seconds: float) -> KafkaLetters:
    """
    Return the letters in the topic of *url*, or in the one beside the source where *setting* is ``EVENTS_URL``.

    Raises:
        SettingError: The URL or what belongs to it cannot be used.
    """
    beside = setting == "EVENTS_URL"
    place = dead_letter_place(url, settings) if beside else topic_place(setting, url, settings)
    return KafkaLetters(KafkaAccess(place), timeout_seconds)


class KafkaLetters:
    """The dead letters in the topic of *access*; see `Letters`."""

    system = "kafka"

    def __init__(self, access: KafkaAccess, timeout_seconds: float) -> None:
        self._access, self._seconds = access, timeout_seconds
        self._topic, self._setting = access.place.topic, access.place.setting
        self._consumer: AIOKafkaConsumer[bytes | None, bytes | None] | None = None
        self._producer: AIOKafkaProducer[bytes | None, bytes | None] | None = None
        self._partitions: dict[str, frozenset[int]] = {}
        self.total = 0
        self.foreign = 0

    async def open(self, *, writing: bool) -> None:
        """Connect and make sure that the topic is there."""
        try:
            async with asyncio.timeout(self._seconds):
                await self._access.reach()
                await check_topics(self._access, [self._topic])
                self._consumer = AIOKafkaConsumer(**self._access.client(), auto_offset_reset="earliest")
                await self._consumer.start()
                if writing:
                    self._producer = self._new_producer()
                    await self._producer.start()
        except TimeoutError as exc:
            reason = f"no Kafka has answered at {self._access.place.shown} within {self._seconds:g} s (--timeout)"
            raise SettingError(self._setting, reason) from exc
        except errors.KafkaError as exc:
            reason = f"Kafka at {self._access.place.shown} cannot be asked: {type(exc).__name__}"
            raise SettingError(self._setting, reason) from exc

    async def found(self) -> AsyncGenerator[Stored, None]:
        """Yield the letters up to where the topic ends now."""
        self.foreign = 0
        async with _told():
            bounds = await self._bounds()
            newest = {partition: await self._newest(partition, *bounds[partition]) for partition in bounds}
            self.total = sum(map(len, newest.values()))
            for partition, offsets in newest.items():
                counting = set(offsets.values())
                async with aclosing(self._read(partition, *bounds[partition])) as messages:
                    async for message in messages:
                        if message.offset in counting and (letter := _letter_of(message)):
                            yield Stored(letter, partition.partition, message.offset)

    async def put_back(self, letter: DeadLetter, destination: str) -> None:
        """Send the message with its key, to the partition that it came from if that is still there."""
        partitions = await self._partitions_of(destination)
        wanted = _partition_of(letter, destination)
        await self._send(
            destination,
            None if letter.tombstone else letter.content,
            key=letter.key,
            headers=redriven_headers(letter),
            partition=wanted if wanted in partitions else None,
        )

    async def remove(self, stored: Stored) -> None:
        """Write the tombstone, into the letter's own partition: compaction looks at nothing else."""
        await self._send(self._topic, None, key=stored.letter.id.encode("utf-8"), partition=stored.partition)

    async def close(self) -> None:
        """Disconnect, within a moment."""
        for client in (self._producer, self._consumer):
            with suppress(TimeoutError, errors.KafkaError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    if client is not None:
                        await client.stop()

    @property
    def _writing(self) -> AIOKafkaProducer[bytes | None, bytes | None]:
        if self._producer is None:
            raise RuntimeError("the letters are not open for writing")
        return self._producer

    @property
    def _opened(self) -> AIOKafkaConsumer[bytes | None, bytes | None]:
        if self._consumer is None:
            raise RuntimeError("the letters are not open")
        return self._consumer

    def _new_producer(self) -> AIOKafkaProducer[bytes | None, bytes | None]:
        return AIOKafkaProducer(
            **self._access.client(), acks="all", enable_idempotence=True, max_request_size=_MAX_REQUEST_BYTES
        )

    async def _bounds(self) -> dict[TopicPartition, tuple[int, int]]:
        """Return where each partition begins and ends now."""
        async with answering(self._seconds), metadata_client(self._access) as client:
            await client.set_topics([self._topic])
            numbers = sorted(client.cluster.partitions_for_topic(self._topic) or ())
            partitions = [TopicPartition(self._topic, number) for number in numbers]
            begins = await self._opened.beginning_offsets(partitions)
            ends = await self._opened.end_offsets(partitions)
        return {partition: (begins[partition], ends[partition]) for partition in partitions}

    async def _newest(self, partition: TopicPartition, begin: int, end: int) -> dict[bytes, int]:
        """Return the offset of the record that counts for each key."""
        offsets: dict[bytes, int] = {}
        async for message in self._read(partition, begin, end):
            if message.key is not None and message.value is None:
                offsets.pop(message.key, None)
            elif message.key is not None and _letter_of(message):
                offsets[message.key] = message.offset
            else:
                self.foreign += 1
        return offsets

    async def _read(self, partition: TopicPartition, begin: int, end: int) -> AsyncGenerator[Message, None]:
        """Yield the records of *partition* from *begin* to before *end*."""
        consumer = self._opened
        consumer.assign([partition])
        consumer.seek(partition, begin)
        position, moved_at = begin, time.monotonic()
        while position < end:
            page = await consumer.getmany(partition, timeout_ms=_LOOK_MILLISECONDS, max_records=_PAGE_RECORDS)
            for message in page.get(partition, ()):
                if message.offset < end:
                    yield message
            before = position
            async with answering(self._seconds):
                # Markers of transactions, and what compaction has taken away, move it without a record.
                position = await consumer.position(partition)
            if position != before or page:
                moved_at = time.monotonic()
            elif time.monotonic() - moved_at > self._seconds:
                raise PlaceError(f"the broker has not answered within {self._seconds:g} s (--timeout)")

    async def _partitions_of(self, topic: str) -> frozenset[int]:
        """Return the partitions of *topic*, which is not made by asking."""
        if topic == self._topic:
            raise LetterError(f"{topic} is where it lies: say with --to where it goes")
        if topic not in self._partitions:
            self._partitions[topic] = await self._ask_partitions(topic)
        if not self._partitions[topic]:
            raise LetterError(f"there is no topic {topic}")
        return self._partitions[topic]

    async def _ask_partitions(self, topic: str) -> frozenset[int]:
        if not 0 < len(topic) <= _MAX_TOPIC_CHARACTERS:
            return frozenset()
        producer = self._writing
        async with _told(), answering(self._seconds):
            if await missing_topics(producer.client, [topic]):
                return frozenset()
            return frozenset(await producer.partitions_for(topic))

    async def _send(self, topic: str, content: bytes | None, **record: Any) -> None:
        producer = self._writing
        try:
            async with answering(self._seconds):
                await producer.send_and_wait(topic, content, **record)
        except _SILENT as exc:
            raise PlaceError(f"the broker does not answer: {type(exc).__name__}") from exc
        except errors.KafkaError as exc:
            raise LetterError(f"{topic} does not take it: {type(exc).__name__}") from exc


@asynccontextmanager
async def _told() -> AsyncIterator[None]:
    """Tell the library's errors as ours."""
    try:
        yield
    except errors.KafkaError as exc:
        raise PlaceError(f"Kafka cannot be asked: {type(exc).__name__}") from exc


def _letter_of(message: Message) -> DeadLetter | None:
    """Return the letter in *message*, or None where it is something else."""
    try:
        letter = read_letter(message.value or b"", message.headers)
    except ValueError:
        return None
    return letter if message.key == letter.id.encode("utf-8") else None


def _partition_of(letter: DeadLetter, destination: str) -> int | None:
    """Return the partition that the message was in, where it goes back to the same topic."""
    topic, _, place = letter.position.partition("/")
    number = place.partition("/")[0]
    return int(number) if topic == destination and number.isdecimal() and len(number) < 10 else None

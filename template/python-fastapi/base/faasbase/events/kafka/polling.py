"""Fetches as much as there is room for, and gives it to the partitions that handle it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from aiokafka import AIOKafkaConsumer, errors
from aiokafka.structs import TopicPartition

from .access import KafkaAccess
from .assignments import Assignments
from .commits import Commits
from .partition import Partition
from .records import Message
from .rereading import reread

logger = logging.getLogger("faasbase.events")

_POLL_SECONDS, _BLOCKED_POLL_SECONDS = 0.2, 0.01
_REREAD_MILLISECONDS = 1000
_LOOK_SECONDS = 1.0
_PAUSE_SECONDS = 1.0
_PASSING = (errors.CorruptRecordException, errors.IllegalStateError)
"""A corrupt record may come whole from another replica; what is not assigned any more is another member's."""


class Polling:
    """
    Fetches from *consumer* what *assignments* have room for.

    A partition without room is not asked for, which keeps what the library has fetched of it already, as `pause` would
    not.
    """

    def __init__(
        self, consumer: AIOKafkaConsumer, assignments: Assignments, commits: Commits, access: KafkaAccess
    ) -> None:
        self._consumer, self._assignments, self._commits, self._access = consumer, assignments, commits, access
        self._looked_at = 0.0

    async def run(self) -> None:
        """
        Fetch until cancelled.

        Raises:
            KafkaError: It cannot go on.
        """
        while True:
            try:
                await self._poll()
            except errors.KafkaError as exc:
                if not (exc.retriable or isinstance(exc, _PASSING)):
                    raise
                logger.error("records cannot be fetched now, trying on: %s", type(exc).__name__)
                await asyncio.sleep(_PAUSE_SECONDS)
            # What was taken runs now; the library does not wait while it has records.
            await asyncio.sleep(0)

    async def _poll(self) -> None:
        consumer, partitions = self._consumer, self._assignments.partitions
        if time.monotonic() - self._looked_at > _LOOK_SECONDS:
            await self._look()
        ready = [one for one in partitions.values() if one.room]
        taken, corrupt = 0, None
        # One by one: the library moves on behind the records of all that it was asked for, and if it cannot read those
        # of one partition it gives those of none.
        for one in ready:
            if room := one.room:
                try:
                    taken += self._take(await consumer.getmany(one.place, max_records=room))
                except UnicodeDecodeError:
                    taken += await self._reread(one.place)
                except errors.CorruptRecordException as exc:
                    # It comes again and again; what is behind the others must not wait for its end.
                    corrupt = exc
        if any(one.advanced for one in partitions.values()):
            self._commits.soon()
        if corrupt is not None:
            raise corrupt
        if not taken:
            await self._wait(ready)

    async def _wait(self, ready: Sequence[Partition]) -> None:
        """Wait for records, or for room where there is none."""
        all_of_them = len(self._assignments.partitions)
        if all_of_them and not ready:
            self._commits.made.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await self._commits.made.wait()
            return
        seconds = _POLL_SECONDS if len(ready) == all_of_them else _BLOCKED_POLL_SECONDS
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._consumer._fetcher._create_fetch_waiter()

    async def _reread(self, place: TopicPartition) -> int:
        """Take what comes before a record that the library cannot read, or that one."""
        consumer, partition = self._consumer, self._assignments.partitions.get(place)
        position = await consumer.position(place)
        with suppress(UnicodeDecodeError):
            # All that it had read before it failed is lost with the failure: here it is one.
            if taken := self._take(await consumer.getmany(place, timeout_ms=_REREAD_MILLISECONDS, max_records=1)):
                return taken
        most = max(1, partition.room if partition else 0)
        messages, next_position = await reread(consumer._client, place, position, most)
        if self._assignments.partitions.get(place) is not partition:
            return 0
        consumer.seek(place, next_position)
        return self._take({place: messages}) if messages else 0

    def _take(self, batch: Mapping[TopicPartition, Sequence[Message]]) -> int:
        taken = 0
        for place, messages in batch.items():
            partition, offset = self._assignments.partitions.get(place), messages[0].offset
            if partition is not None and offset < partition.window.position:
                self._assignments.rewind(place, offset)
                partition = None
            if partition is None:
                # Not open yet: they come again.
                with suppress(errors.IllegalStateError):
                    self._consumer.seek(place, offset)
                continue
            partition.take(messages)
            taken += len(messages)
        return taken

    async def _look(self) -> None:
        """Do what is to be done now and then: new credentials, and what no record tells of."""
        consumer, self._looked_at = self._consumer, time.monotonic()
        # Where nothing has room nothing is asked for, which is when the library says what has become of it.
        consumer._coordinator.check_errors()
        if consumer._fetcher.error_future.done():
            consumer._fetcher.error_future.result()
        self._access.renew(consumer._client)
        for place, partition in list(self._assignments.partitions.items()):
            with suppress(TimeoutError, errors.IllegalStateError):
                async with asyncio.timeout(_BLOCKED_POLL_SECONDS):
                    # Behind the last record there may be markers of transactions, which are no records.
                    partition.window.fetched(await consumer.position(place))

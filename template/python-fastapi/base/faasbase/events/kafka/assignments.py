"""What a member of a group is given to handle, and gives back."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from contextlib import suppress

from aiokafka import AIOKafkaConsumer, errors
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from .access import missing_topics, until_answered
from .commits import NOT_OURS, Commits
from .committed import committed_offsets
from .offsets import OffsetWindow
from .partition import Partition, Work, end_all

logger = logging.getLogger("faasbase.events")

REVOKE_SECONDS = 30.0
"""What handlers have before they are cancelled, when the group is shared out anew."""
LAST_COMMIT_SECONDS = 5.0


class Assignments(ConsumerRebalanceListener):  # type: ignore[misc]
    """Opens partitions for *work* as *consumer* is assigned them for *group*, and closes them when they are revoked."""

    def __init__(self, consumer: AIOKafkaConsumer, group: str, commits: Commits, work: Work) -> None:
        self._consumer, self._group, self._commits, self._work = consumer, group, commits, work
        self.partitions: dict[TopicPartition, Partition] = commits.partitions
        self._changing = asyncio.Lock()
        self._opening: asyncio.Task[None] | None = None
        self._rewound: set[asyncio.Task[None]] = set()
        self._patience: asyncio.Timeout | None = None
        self._stopped = False

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Let what runs end, commit it, and forget all: the protocol takes everything away at each change."""
        await self._close(REVOKE_SECONDS, LAST_COMMIT_SECONDS)

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Begin to open what is *assigned*; heartbeats begin only behind this."""
        if self._stopped:
            return
        if assigned:
            self._consumer.pause(*assigned)
        opening = self._open(assigned) if assigned else self._look_for_topics()
        self._opening = asyncio.create_task(opening, name="kafka assignment")
        self._opening.add_done_callback(self._work.ended)

    def rewind(self, place: TopicPartition, offset: int) -> None:
        """Begin anew at *offset*: the log was cut, or is another one, and what is known is of records that are gone."""
        logger.warning("the log of %s begins anew at offset %d", f"{place.topic}/{place.partition}", offset)
        before = self.partitions.pop(place)
        before.stop()
        self._consumer.pause(place)
        task = asyncio.create_task(self._begin_anew(before, offset), name="kafka rewind")
        self._rewound.add(task)
        task.add_done_callback(self._rewound.discard)
        task.add_done_callback(self._work.ended)

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped = True
        for partition in self.partitions.values():
            partition.stop()

    async def drain(self, seconds: float, commit_seconds: float) -> None:
        """Give what runs *seconds*, cancel the rest, commit, and forget all; what is revoked gets no longer either."""
        self.stop()
        until = asyncio.get_running_loop().time() + seconds
        if (patience := self._patience) is not None and (patience.when() or until) > until:
            patience.reschedule(until)
        await self._close(seconds, commit_seconds)

    async def _close(self, seconds: float, commit_seconds: float) -> None:
        async with self._changing:
            if self._opening is not None:
                self._opening.cancel()
                await asyncio.gather(self._opening, *self._rewound, return_exceptions=True)
            partitions = list(self.partitions.values())
            ended = await self._end(partitions, seconds)
            try:
                async with asyncio.timeout(commit_seconds):
                    await self._commit_last(partitions, clean=ended)
            except (TimeoutError, errors.KafkaError) as exc:
                logger.warning("what was settled last is not committed and will be repeated: %s", type(exc).__name__)
            self.partitions.clear()

    async def _end(self, partitions: list[Partition], seconds: float) -> bool:
        """End *partitions* as `end_all` does, giving what runs *seconds*, or what a drain leaves of them."""
        for partition in partitions:
            partition.stop()
        with suppress(TimeoutError):
            try:
                async with asyncio.timeout(seconds) as self._patience:
                    await asyncio.gather(*(partition.idle() for partition in partitions))
            finally:
                self._patience = None
        return await end_all(partitions, 0.0)

    async def _commit_last(self, partitions: list[Partition], *, clean: bool) -> None:
        await until_answered(lambda: self._commits.commit(partitions, clean=clean))

    async def _open(self, assigned: Collection[TopicPartition]) -> None:
        try:
            opened = await self._begun(assigned)
        except NOT_OURS:
            # The group is being shared out anew, which takes away what was not even opened.
            return
        self._begin(opened)
        shown = ", ".join(f"{place.topic}/{place.partition}" for place in sorted(opened))
        logger.info("group %s: given %d partitions: %s", self._group, len(opened), shown)
        await self._look_for_topics()

    async def _begin_anew(self, before: Partition, offset: int) -> None:
        # Two runs of one key at a time would be out of order.
        await before.end(0.0)
        self._begin({before.place: self._partition(before.place, OffsetAndMetadata(offset, ""))})

    def _begin(self, opened: Mapping[TopicPartition, Partition]) -> None:
        self.partitions.update(opened)
        for place, partition in opened.items():
            partition.show()
            with suppress(errors.IllegalStateError):
                self._consumer.seek(place, partition.window.position)
                self._consumer.resume(place)

    async def _look_for_topics(self) -> None:
        """Tell which are gone, and fail where all are and nothing is ours: what others have may come to us again."""
        with suppress(errors.KafkaError):
            topics = self._consumer.subscription()
            missing = await missing_topics(self._consumer._client, topics)
            for topic in missing:
                if len(missing) < len(topics) or self.partitions:
                    logger.error("there is no topic %s any more", topic)
                else:
                    self._work.failed(LookupError(f"there is no topic {topic} any more"))

    async def _begun(self, assigned: Collection[TopicPartition]) -> dict[TopicPartition, Partition]:
        """Return the partitions with what is known of each, once the broker knows that they have a new owner."""
        committed = await committed_offsets(self._consumer._client, self._group, assigned)
        if fresh := [place for place in assigned if place not in committed]:
            starts = await until_answered(lambda: self._consumer.beginning_offsets(fresh))
            committed |= {place: OffsetAndMetadata(offset, "") for place, offset in starts.items()}
        opened = {place: self._partition(place, committed[place]) for place in assigned}
        await self._commit_last(list(opened.values()), clean=False)
        return opened

    def _partition(self, place: TopicPartition, committed: OffsetAndMetadata) -> Partition:
        most = self._work.policy.max_uncommitted
        window = OffsetWindow(committed.offset, committed.metadata, max_uncommitted=most)
        if window.unreadable:
            where = f"{place.topic}/{place.partition}"
            logger.warning("what was committed with the offset of %s tells nothing: %s", where, window.unreadable)
        return Partition(place, window, self._work, lambda: self._consumer.highwater(place))

"""Commits of a source: every so often, before a suspect runs, and the last one of a partition."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress

from aiokafka import AIOKafkaConsumer, errors
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from ...resilience import backoff
from .offset_metadata import MAX_CHARACTERS, MIN_CHARACTERS
from .offsets import Commit
from .partition import Partition

logger = logging.getLogger("faasbase.events")

FIRST_COMMIT_SECONDS, COMMIT_SECONDS = 3.0, 10.0
"""How long the broker may take for one, and for one that is tried again and again; others wait meanwhile."""
_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS = 0.1, 2.0
_TOO_LARGE = (errors.OffsetMetadataTooLargeError, errors.InvalidCommitOffsetSizeError)
NOT_OURS = (errors.CommitFailedError, errors.IllegalStateError)
"""Whoever is given the partitions next goes on from the commit before."""


class Commits:
    """
    Commits what `partitions`, the open ones of *consumer*, say; *failed* takes what no later commit can mend.

    One at a time, so that none overtakes another.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        interval_seconds: float,
        failed: Callable[[BaseException], None],
    ) -> None:
        self._consumer, self._failed = consumer, failed
        self.partitions: dict[TopicPartition, Partition] = {}
        self._interval_seconds = interval_seconds
        self._one = asyncio.Lock()
        self._wanted = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._known: set[str] = set()
        self._characters, self._seconds = MAX_CHARACTERS, FIRST_COMMIT_SECONDS
        self._told = False
        self.made = asyncio.Event()
        """Set by each commit, for whoever waits for room."""

    def soon(self) -> None:
        """Commit without waiting for the interval."""
        self._wanted.set()

    async def flushed(self) -> None:
        """Wait until what the partitions say now is committed."""
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._wanted.set()
        await future

    async def run(self) -> None:
        """Commit until cancelled."""
        failures = 0
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_seconds):
                    await self._wanted.wait()
            self._wanted.clear()
            if await self._tried():
                failures = 0
                continue
            await asyncio.sleep(backoff(failures, _PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS))
            failures += 1
            self._wanted.set()

    async def commit(self, partitions: Iterable[Partition], *, clean: bool = False) -> None:
        """
        Commit what *partitions* say, where that is anything new; *clean* once nothing of them runs any more.

        Raises:
            KafkaError: The broker refuses.
            TimeoutError: It does not answer.
        """
        topics: defaultdict[str, list[Partition]] = defaultdict(list)
        async with self._one:
            for one in partitions:
                if (clean or one.window.dirty) and not self._is_gone(one.place.topic):
                    topics[one.place.topic].append(one)
            # Topic by topic: one that is gone would have all of a request refused.
            sent = await asyncio.gather(*(self._sent(some, clean) for some in topics.values()), return_exceptions=True)
            for error in sent:
                if error is not None:
                    raise error
            self._seconds = FIRST_COMMIT_SECONDS

    async def _tried(self) -> bool:
        waiting, self._waiting = self._waiting, []
        try:
            await self.commit(list(self.partitions.values()))
        except (TimeoutError, errors.KafkaError) as exc:
            self._waiting += waiting
            self._note(exc)
            return False
        except BaseException:
            self._waiting += waiting
            raise
        for future in waiting:
            if not future.done():
                future.set_result(None)
        self._recovered()
        return True

    def _is_gone(self, topic: str) -> bool:
        # The library would ask for ten seconds, and whoever waits for its turn with it.
        gone = topic in self._known and self._consumer._client.cluster.partitions_for_topic(topic) is None
        if gone:
            logger.warning("offsets of %s are not committed: the cluster has no such topic", topic)
        return gone

    async def _sent(self, partitions: Sequence[Partition], clean: bool) -> None:
        while True:
            commits = {one: one.window.commit(clean=clean, max_characters=self._characters) for one in partitions}
            try:
                await self._send(commits)
            except _TOO_LARGE:
                if not self._characters:
                    raise
                if self._characters == MAX_CHARACTERS:
                    logger.warning(
                        "the broker takes less metadata with offsets than is its default: repeats may be more"
                    )
                self._characters = self._characters // 2 if self._characters > MIN_CHARACTERS else 0
                continue
            for partition, commit in commits.items():
                partition.window.committed(commit)
                self._known.add(partition.place.topic)
            self.made.set()
            return

    async def _send(self, commits: Mapping[Partition, Commit]) -> None:
        offsets = {one.place: OffsetAndMetadata(commit.offset, commit.metadata) for one, commit in commits.items()}
        try:
            async with asyncio.timeout(self._seconds):
                await self._consumer.commit(offsets)
        except TimeoutError:
            self._seconds = min(2 * self._seconds, COMMIT_SECONDS)
            raise

    def _note(self, exc: Exception) -> None:
        if isinstance(exc, NOT_OURS):
            # The group is being shared out anew; whoever is given the partitions goes on from the commit before.
            return
        if isinstance(exc, errors.KafkaError) and not exc.retriable:
            self._failed(exc)
        elif not self._told:
            self._told = True
            logger.warning("offsets cannot be committed now, trying on: %s", type(exc).__name__)

    def _recovered(self) -> None:
        if self._told:
            self._told = False
            logger.info("offsets are committed again")

"""Events from Kafka: a member of a consumer group that settles record by record."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from aiokafka import AIOKafkaConsumer, errors

from ...errors import SettingError
from ...settings import Settings
from ..processing import Processor
from ..settlement import Settlement
from ..sources import SourceError
from .access import KafkaAccess, check_topics, patiently
from .assignments import Assignments
from .commits import Commits
from .dead_letters import KafkaDeadLetters
from .partition import Work
from .place import dead_letter_place, source_place
from .polling import Polling
from .turns import Turns

logger = logging.getLogger("faasbase.events")

REBALANCE_SECONDS = 45.0
"""How long the group waits for a member that still handles what it has."""
JOIN_SECONDS = 5.0
"""A group that refuses does so at once; to be let in takes as long as others handle what they have."""
_DRAIN_COMMIT_SECONDS, _LEAVE_SECONDS = 2.0, 1.5
# A fetch that waits keeps others from being sent to its broker.
_FETCH_WAIT_SECONDS = 0.1
_MAX_POLL_MILLISECONDS = 2**31 - 1


class KafkaSource:
    """
    The topics of *url* for the group that it names; *processor* handles their records.

    Raises:
        SettingError: A URL cannot be used.
        SecretMissingError: A secret is not there.
    """

    def __init__(self, url: str, settings: Settings, processor: Processor) -> None:
        self._place, self._policy, self._function = (
            source_place(url, settings),
            settings.events,
            settings.qualified_name,
        )
        self._access = KafkaAccess(self._place)
        self._letters_access = KafkaAccess(dead_letter_place(url, settings))
        self._processor = processor
        self._dead_letters: KafkaDeadLetters | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """
        Connect, check what is there, and ask to be let into the group; whoever calls bounds that.

        Raises:
            SettingError: A topic is missing, or the broker refuses.
        """
        await self._access.reach()
        await patiently("EVENTS_URL", lambda: check_topics(self._access, self._place.topics))
        self._dead_letters = KafkaDeadLetters(self._letters_access)
        await self._dead_letters.open()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        consumer = self._consumer = self._made()
        self._commits = Commits(consumer, self._policy.commit_interval, self._fail)
        work = self._work(self._dead_letters)
        self._assignments = Assignments(consumer, self._place.group, self._commits, work)
        consumer.subscribe(list(self._place.topics), listener=self._assignments)
        self._joining = asyncio.create_task(consumer.start(), name="kafka join")
        committing = asyncio.create_task(self._commits.run(), name="kafka commits")
        committing.add_done_callback(work.ended)
        self._tasks = [self._joining, committing]
        await asyncio.wait({self._joining}, timeout=JOIN_SECONDS)
        if self._joining.done() and (error := self._joining.exception()):
            raise self._refusal(error) from error

    async def run(self) -> None:
        """
        Fetch and handle until `stop`.

        Raises:
            SourceError: It cannot go on.
        """
        polling = asyncio.create_task(self._poll(), name="kafka poll")
        try:
            await asyncio.wait({polling, self._ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            polling.cancel()
            await asyncio.gather(polling, return_exceptions=True)
        error = self._ended.exception() if self._ended.done() else polling.exception()
        if error is not None:
            raise SourceError(f"events of {', '.join(self._place.topics)} are no longer fetched: {error}") from error

    def stop(self) -> None:
        """Fetch nothing more and begin nothing that waits."""
        if self._consumer is not None:
            if not self._ended.done():
                self._ended.set_result(None)
            self._assignments.stop()

    async def drain(self, seconds: float) -> None:
        """Let what is in flight end within *seconds*, cancel the rest, commit, and leave the group."""
        if self._consumer is not None:
            await self._assignments.drain(seconds, _DRAIN_COMMIT_SECONDS)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            with suppress(TimeoutError, errors.KafkaError):
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await self._consumer.stop()
            # What fails behind the stop is nobody's to be told.
            self._ended.exception()
        if self._dead_letters is not None:
            await self._dead_letters.close()

    def _made(self) -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            **self._access.client(),
            group_id=self._place.group,
            client_id=self._function,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=int(_FETCH_WAIT_SECONDS * 1000),
            session_timeout_ms=int(self._policy.session_timeout * 1000),
            heartbeat_interval_ms=int(self._policy.session_timeout * 1000 / 4),
            rebalance_timeout_ms=int(REBALANCE_SECONDS * 1000),
            # While nothing has room nothing is asked for, however long a handler takes; the library would leave then.
            max_poll_interval_ms=_MAX_POLL_MILLISECONDS,
        )

    def _work(self, dead_letters: KafkaDeadLetters) -> Work:
        policy = self._policy
        return Work(
            settlement=Settlement(self._processor, policy, dead_letters, self._function),
            policy=policy,
            turns=Turns(),
            lanes=max(policy.lanes, self._processor.largest_batch),
            flushed=self._commits.flushed,
            failed=self._fail,
        )

    async def _poll(self) -> None:
        await self._joining
        assert self._consumer is not None  # noqa: S101 - it is there from the start on
        await Polling(self._consumer, self._assignments, self._commits, self._access).run()

    def _fail(self, error: BaseException) -> None:
        if not self._ended.done():
            self._ended.set_exception(error)

    def _refusal(self, error: BaseException) -> SettingError:
        group = self._place.group
        if isinstance(error, errors.GroupAuthorizationFailedError):
            return SettingError("EVENTS_URL", f"the broker lets nobody of that name into the group {group}")
        if isinstance(error, errors.InvalidSessionTimeoutError):
            limits = "group.min.session.timeout.ms and group.max.session.timeout.ms"
            return SettingError("EVENTS_SESSION_TIMEOUT", f"is not within what the broker allows ({limits})")
        return SettingError("EVENTS_URL", f"the group {group} cannot be joined: {type(error).__name__}")

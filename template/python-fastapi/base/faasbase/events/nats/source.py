"""A function's events out of a stream of NATS JetStream, by a pull consumer that its replicas share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from nats.errors import Error as NatsError

from ...settings import Settings
from ..http.dead_letters import Keeper
from ..outcomes import Outcome
from ..processing import Processor
from ..settlement import Settlement
from ..sources import SourceError
from .acks import Acks
from .client import Message, NatsClient
from .connection import NatsConnection
from .consumer import ACK_WAIT_SECONDS, agreed_consumer, stream_of
from .hand import Hand, Held
from .place import NatsPlace
from .pull import Pull
from .watch import Watch

logger = logging.getLogger("faasbase.events")

_SPARE_ATTEMPTS = 10
"""
How many deliveries there are beyond the last attempt, in which a message runs alone, before it is given up unrun.

An end of the process counts for whatever was to run after the one that caused it, too: in one of the first two where
one ends it, by chance where several do.
"""
_LOOK_SECONDS = 5.0
_LEAVE_SECONDS = 2.0
_PAUSE_SECONDS = 0.5
_ENDED = Outcome("failed", "the process ended each time that the event was handled", "ProcessEnded")


class NatsSource:
    """
    Fetches what can be handled at once, and no more: nothing that waits here is kept from other replicas.

    Retries wait in the server.  Events are handled in no order, unless there is one lane: then the server lets out one
    message at a time, to all replicas together.
    """

    def __init__(
        self,
        place: NatsPlace,
        settings: Settings,
        processor: Processor,
        letters: Callable[[NatsConnection], Keeper],
    ) -> None:
        policy = settings.events
        self._place, self._policy = place, policy
        self._connection = NatsConnection(place, settings.function_name, self._change, self._repeat)
        self._keeper = letters(self._connection)
        self._settlement = Settlement(processor, policy, self._keeper, settings.function_name)
        self._acks = Acks(self._connection)
        self._watch = Watch(
            self._connection,
            self._acks,
            self._fail,
            commit_seconds=policy.commit_interval,
            refusal_seconds=policy.start_timeout,
        )
        size = max(policy.lanes, processor.largest_batch)
        self._hand = Hand(self._handle, self._change, size=size, last_attempt=policy.max_attempts, settled=self._acks)
        # Handlers of batches get them one by one then: who wants lists from one lane has no other handler, or no order.
        in_order = policy.order == "key" and (size == 1 or (policy.lanes == 1 and processor.takes_single))
        self._max_ack_pending = 1 if in_order else max(policy.max_uncommitted, size)
        self._changed, self._stopping, self._fetched = asyncio.Event(), False, asyncio.Event()
        self._ack_wait = ACK_WAIT_SECONDS
        self._failure: SourceError | None = None
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """
        Connect, and agree with the server on the consumer.

        Raises:
            SettingError: As `Source.start` says.
        """
        await self._connection.open()
        await stream_of(self._connection, self._place.name)
        await self._keeper.open()
        info = await agreed_consumer(self._connection, self._max_ack_pending)
        self._ack_wait = info.config.ack_wait or ACK_WAIT_SECONDS
        logger.info("fetching from the stream %s as %s", self._place.name, self._place.durable)

    async def run(self) -> None:
        """
        Fetch until `stop`.

        Raises:
            SourceError: The consumer is gone or gives nothing, or the credentials are refused for good.
        """
        works = (self._touch(), self._watch.run(lambda: self._hand.running))
        self._tasks = [asyncio.create_task(work, name="nats source") for work in works]
        for task in self._tasks:
            task.add_done_callback(self._ended)
        try:
            while not self._stopping:
                await self._fetch()
        finally:
            self._fetched.set()

    def stop(self) -> None:
        """Fetch nothing more."""
        self._stopping = True
        self._hand.stop()
        if not self._tasks:
            self._fetched.set()
        self._change()

    async def drain(self, seconds: float) -> None:
        """Give back what has not begun, let the rest end within *seconds*, and leave."""
        self.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LEAVE_SECONDS):
                await self._fetched.wait()
        for held in self._hand.release():
            await self._acks.again(held.reply)
        await self._hand.drain(seconds)
        if self._acks.unconfirmed:
            with suppress(TimeoutError, NatsError, OSError):
                async with asyncio.timeout(_LEAVE_SECONDS):
                    await self._watch.ask()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._keeper.close()
        await self._connection.close()

    async def _repeat(self, client: NatsClient) -> None:
        await self._acks.repeat(client)

    async def _fetch(self) -> None:
        """Fetch over one connection, until it is lost or nothing more is to be fetched."""
        self._raise_failure()
        if (client := self._connection.current) is None:
            await self._wait()
            return
        pull = Pull(client, (self._place.name, self._place.durable), self._deliver, self._change)
        try:
            await pull.begin()
            while client.is_connected and not self._stopping and not pull.is_silent:
                await self._keep_asking(pull)
        except (NatsError, OSError):
            # The next connection goes on; what this one had asked for comes again.
            return
        finally:
            await pull.end()

    async def _keep_asking(self, pull: Pull) -> None:
        self._raise_failure()
        if pull.is_gone:
            raise SourceError(self._watch.gone)
        if pull.is_refused:
            raise SourceError(f"the consumer {self._place.durable} refuses to be asked for events: {pull.trouble}")
        if pull.trouble:
            logger.info("the consumer %s: %s", self._place.durable, pull.trouble)
            pull.trouble = ""
            await asyncio.sleep(_PAUSE_SECONDS)
        room = self._hand.room - pull.asked
        # One request for several: half of the lanes are busy while it is under way.
        if room > 0 and (room * 2 >= self._hand.size or not pull.asked):
            await pull.ask(room)
        await self._wait()

    async def _wait(self) -> None:
        """Wait until there is something to do; a moment for nothing, should nobody tell."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_SECONDS):
                await self._changed.wait()
        self._changed.clear()

    def _deliver(self, message: Message) -> None:
        if (record := self._hand.take(message)) is not None:
            self._watch.taken(record.timestamp, self._hand.running)

    async def _handle(self, held: Held) -> None:
        record = held.record
        try:
            if record.attempt > self._policy.max_attempts + _SPARE_ATTEMPTS:
                await self._settlement.give_up(record, _ENDED)
                await self._acks.settle(held.reply, record.position, dead=True)
                return
            verdict = await self._settlement.handle(record, held.parcel)
        except asyncio.CancelledError:
            await self._acks.again(held.reply)
            raise
        if verdict.after_seconds is None:
            await self._acks.settle(held.reply, record.position, dead=verdict.dead)
        elif not verdict.counts and not self._stopping:
            self._hand.park(held, verdict.after_seconds)
        else:
            await self._acks.again(held.reply, verdict.after_seconds)

    async def _touch(self) -> None:
        """Keep the server from delivering again what takes long."""
        while True:
            await asyncio.sleep(self._ack_wait / 3)
            for reply in self._hand.replies():
                await self._acks.progress(reply)

    def _change(self) -> None:
        self._changed.set()

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Let nobody fetch on without heartbeats and confirmations."""
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("looking after the consumer %s has failed", self._place.durable, exc_info=error)
            self._fail(f"nobody looks after the consumer {self._place.durable} any more")

    def _fail(self, reason: str) -> None:
        self._failure = self._failure or SourceError(reason)
        self._change()

    def _raise_failure(self) -> None:
        if self._hand.error is not None:
            raise SourceError("an event could not be settled") from self._hand.error
        if self._failure is not None:
            raise self._failure

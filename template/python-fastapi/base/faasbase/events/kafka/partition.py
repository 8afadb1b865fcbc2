"""One partition as long as it is assigned: its records in their lanes, and what its commits say of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka.structs import TopicPartition

from ...event_policy import EventsPolicy
from ..lanes import Lanes
from ..loop_share import LoopShare
from ..outcomes import SETTLED, Outcome
from ..processing import Begun
from ..records import Record
from ..settlement import Settlement, Verdict
from ..tally import ATTEMPTS
from ..telemetry import LAG, LAG_SECONDS, LANES
from .offsets import OffsetWindow
from .records import Message, RecordReader
from .turns import Turns

_ENDS_THE_PROCESS = Outcome("failed", "each of its runs ended with the process, the last one alone", "ProcessEnded")
_LOOK_SECONDS = 1.0
MOST_BYTES = 16 * 1024 * 1024
"""Contents that are not settled yet may take that much, and what was fetched at a time; then no more are taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the partitions of a source share."""

    settlement: Settlement
    policy: EventsPolicy
    turns: Turns
    lanes: int
    """How many records of a partition run at a time."""
    share: LoopShare = field(default_factory=LoopShare)
    flushed: Callable[[], Awaitable[None]]
    """Waits until what the windows say now is committed."""
    failed: Callable[[BaseException], None]
    """Takes what should never happen."""

    def ended(self, task: asyncio.Task[None]) -> None:
        """Fail where *task* has, which nobody waits for."""
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failed(error)


class Partition:
    """The records of *place* from the position of *window* on; *highwater* tells where its log ends, if known."""

    def __init__(
        self, place: TopicPartition, window: OffsetWindow, work: Work, highwater: Callable[[], int | None]
    ) -> None:
        self.place, self.window = place, window
        self._work, self._turns, self._highwater = work, work.turns, highwater
        self._read, self._begin = RecordReader(place).read, work.settlement.begin
        self._most = work.policy.max_uncommitted
        # Fetching one by one whatever there is room for would cost more than handling it.
        self._fewest = max(1, self._most // 8)
        self._attempts = ATTEMPTS.of(place.topic)
        self._bytes = 0
        self._taken_at: float | None = None
        self._lanes: Lanes[Message] = Lanes(
            self._run,
            work.failed,
            size=work.lanes,
            ordered=work.policy.order == "key",
            name=f"lane {place.topic}",
            share=work.share,
        )
        self._stopped = False

    @property
    def room(self) -> int:
        """How many records may be taken now; 0 where it is not worth the asking."""
        left = self._most - self.window.uncommitted
        return left if left >= self._fewest and self._bytes < MOST_BYTES and not self._stopped else 0

    @property
    def behind(self) -> bool:
        """Whether there are records that were not taken yet."""
        return (self._highwater() or 0) > self.window.position

    @property
    def advanced(self) -> bool:
        """Whether a commit now would make much room."""
        window = self.window
        held = window.position - window.base
        return window.uncommitted - held >= self._most // 4

    def take(self, messages: Sequence[Message]) -> None:
        """Run *messages*, which follow those before, but for those that are settled already."""
        if self._stopped:
            return
        window, last = self.window, messages[-1]
        if messages[0].offset < window.settled_until:
            messages = [message for message in messages if not window.is_settled(message.offset)]
        if messages:
            first, end = messages[0].offset, last.offset + 1
            # Without gaps, as mostly, they need not be looked up one by one.
            window.begin(*(range(first, end) if end - first == len(messages) else [one.offset for one in messages]))
            self._bytes += sum([len(message.value or b"") for message in messages])
            self._lanes.submit(*[(message.key, message) for message in messages])
        window.fetched(last.offset + 1)
        self._taken_at = last.timestamp / 1000 if last.timestamp > 0 else None

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped = True
        self._lanes.stop()

    async def idle(self) -> None:
        """Wait, after `stop`, until nothing runs; whoever calls bounds that."""
        while not await self._lanes.drained(_LOOK_SECONDS):
            pass

    async def end(self, seconds: float) -> bool:
        """Stop, give what runs *seconds* to end, cancel the rest; False if something goes on all the same."""
        self.stop()
        ended = await self._lanes.drained(seconds) or await self._lanes.cancel()
        self._hide()
        return ended

    def _run(self, message: Message) -> Coroutine[Any, Any, float | None] | None:
        window, offset = self.window, message.offset
        if self._turns.closed or not window.is_usual(offset):
            return self._run_with_care(message)
        record, came = self._read(message, 1)
        try:
            begun = self._begin(record, came)
        except BaseException:
            window.attempt(offset)
            window.ended(offset)
            raise
        if begun is SETTLED:
            # As most are, before anything else could run: nobody had to know that it did.
            self._attempts[1] += 1
            window.settle(offset)
            self._bytes -= len(record.content)
            return None
        window.attempt(offset)
        self._turns.running += 1
        return self._go_on(message, record, begun)

    async def _run_with_care(self, message: Message) -> float | None:
        """Run what has to wait first, or may end the process."""
        turns, window, offset = self._turns, self.window, message.offset
        if window.pauses and (seconds := window.pause(offset)):
            return seconds
        if window.alone(offset):
            async with turns.alone():
                return 0.0 if self._stopped else await self._try_alone(message)
        while turns.closed:
            await turns.opened()
            if self._stopped:
                return 0.0
        return await self._try(message)

    async def _try_alone(self, message: Message) -> float | None:
        window, offset, work = self.window, message.offset, self._work
        if not window.ends_the_process(offset, work.policy.max_attempts):
            return await self._try(message)
        record, _ = self._read(message, window.attempts_of(offset))
        await work.settlement.give_up(record, _ENDS_THE_PROCESS)
        self._settle(message)
        return None

    async def _try(self, message: Message) -> float | None:
        window, offset, work = self.window, message.offset, self._work
        attempt = window.attempt(offset)
        self._turns.running += 1
        try:
            if window.suspect(offset):
                await work.flushed()
                if self._stopped:
                    window.take_back(offset)
                    return 0.0
            verdict = await work.settlement.handle(*self._read(message, attempt))
        except BaseException:
            window.ended(offset)
            raise
        finally:
            self._turns.leave()
        return self._judged(message, verdict)

    async def _go_on(self, message: Message, record: Record, begun: Begun) -> float | None:
        """Await what is left of a try that has begun."""
        try:
            outcome = begun if isinstance(begun, Outcome) else await begun
            verdict = await self._work.settlement.judge(record, outcome)
        except BaseException:
            self.window.ended(message.offset)
            raise
        finally:
            self._turns.leave()
        return self._judged(message, verdict)

    def _judged(self, message: Message, verdict: Verdict) -> float | None:
        if verdict.after_seconds is None:
            self._settle(message)
        elif verdict.counts:
            self.window.ended(message.offset, verdict.after_seconds)
        else:
            self.window.take_back(message.offset, verdict.after_seconds)
        return verdict.after_seconds

    def _settle(self, message: Message) -> None:
        self.window.settle(message.offset)
        self._bytes -= len(message.value or b"")

    def show(self) -> None:
        """Let metrics tell of it until it ends."""
        labels = self._labels()
        LAG.read_from(self._lag, **labels)
        LAG_SECONDS.read_from(self._lag_seconds, **labels)
        LANES.read_from(lambda: self._lanes.running, **labels)

    def _hide(self) -> None:
        for gauge in (LAG, LAG_SECONDS, LANES):
            gauge.forget(**self._labels())

    def _labels(self) -> dict[str, str]:
        return {"destination": self.place.topic, "partition": str(self.place.partition)}

    def _lag(self) -> float:
        return max(0, (self._highwater() or 0) - self.window.base)

    def _lag_seconds(self) -> float:
        # A producer's clock may be ahead.
        return max(0.0, time.time() - self._taken_at) if self._taken_at and self._lag() else 0.0


async def end_all(partitions: Sequence[Partition], seconds: float) -> bool:
    """End *partitions* side by side, as `Partition.end` does; False if one did not."""
    for partition in partitions:
        partition.stop()
    ended = await asyncio.gather(*(partition.end(seconds) for partition in partitions))
    return all(ended)

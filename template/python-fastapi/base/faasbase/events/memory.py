"""
A broker inside the process, for tests: ``EVENTS_URL=memory://orders``, ``PUBLISH_URL=memory://orders``.

It promises what Kafka does, order per key included, as long as the process lives; nothing outlives the event loop.
"""

from __future__ import annotations

from ..backends import backend_of, split_url
from ..errors import SettingError
from ..settings import Settings
from .dead_letters import DeadLetter
from .http.dead_letters import KEEPERS, Keeper
from .lanes import Lanes
from .memory_broker import PREFIX, MemoryMessage, Topic, memory_broker
from .outgoing import Outgoing
from .processing import Processor
from .settlement import Settlement
from .sources import SourceError
from .telemetry import LAG, LANES


class MemoryLetters:
    """Keeps dead letters in the broker, the last of each id."""

    async def open(self) -> None:
        """Do nothing: the broker is there."""

    async def send(self, letter: DeadLetter) -> None:
        """Keep *letter*."""
        letters = memory_broker().dead_letters
        for known in [known for known in letters if known.id == letter.id]:
            letters.remove(known)
        letters.append(letter)

    async def close(self) -> None:
        """Keep what was sent, for whoever looks at it."""


class MemoryPublisher:
    """Publishes to a topic of the broker."""

    system = "memory"

    def __init__(self, destination: str) -> None:
        self.destination = destination

    async def open(self) -> None:
        """Do nothing: every topic is there."""

    async def send(self, message: Outgoing, destination: str) -> None:
        """
        Put *message* into the topic *destination*.

        Raises:
            PublishError: It is full.
        """
        message = message.with_key()
        headers = {name.lower(): value for name, value in message.all_headers(PREFIX).items()}
        memory_broker().write(destination, message.body(), headers, message.key)

    async def close(self) -> None:
        """Keep what was sent, for whoever looks at it."""


class MemorySource:
    """Handles what is in a topic of the broker, in order for each key; retries wait in their lane."""

    def __init__(self, name: str, settings: Settings, processor: Processor, keeper: Keeper) -> None:
        self._name, self._policy, self._keeper = name, settings.events, keeper
        self._size = max(settings.events.lanes, processor.largest_batch)
        self._settlement = Settlement(processor, settings.events, keeper, settings.function_name)
        self._stopping = False
        self._error: BaseException | None = None
        self._held: set[MemoryMessage] = set()
        self._lanes: Lanes[MemoryMessage] | None = None

    async def start(self) -> None:
        """Be ready to take messages."""
        ordered = self._policy.order == "key"
        self._lanes = Lanes(self._handle, self._fail, size=self._size, ordered=ordered, name=f"memory {self._name}")
        await self._keeper.open()

    async def run(self) -> None:
        """
        Take messages until `stop`.

        Raises:
            SourceError: One could not be settled.
        """
        topic = self._topic
        while self._lanes is not None and not self._stopping:
            topic.changed.clear()
            while topic.waiting and len(self._held) < self._policy.max_uncommitted:
                message = topic.waiting.popleft()
                self._held.add(message)
                self._lanes.submit((message.key, message))
            LAG.set(len(topic.waiting) + len(self._held), destination=self._name, partition="")
            LANES.set(self._lanes.running, destination=self._name, partition="")
            await topic.changed.wait()
            if self._error is not None:
                raise SourceError("an event could not be settled") from self._error

    def stop(self) -> None:
        """Take no more, and begin nothing that waits."""
        self._stopping = True
        if self._lanes is not None:
            self._lanes.stop()
            self._topic.changed.set()

    async def drain(self, seconds: float) -> None:
        """Let what runs end within *seconds*, and leave the rest to whoever comes next."""
        self.stop()
        if self._lanes is not None and not await self._lanes.drained(seconds):
            await self._lanes.cancel()
        left = sorted(self._held, key=lambda message: message.offset, reverse=True)
        self._held.clear()
        self._topic.waiting.extendleft(left)
        await self._keeper.close()

    @property
    def _topic(self) -> Topic:
        return memory_broker().topic(self._name)

    async def _handle(self, message: MemoryMessage) -> float | None:
        message.attempts += 1
        verdict = await self._settlement.handle(message.record(), message.parcel())
        if verdict.after_seconds is None:
            self._held.discard(message)
            self._topic.changed.set()
        elif not verdict.counts:
            message.attempts -= 1
        return verdict.after_seconds

    def _fail(self, error: BaseException) -> None:
        self._error = error
        self._topic.changed.set()


def open_source(url: str, settings: Settings, processor: Processor) -> MemorySource:
    """
    Return the source of *url*, one of ``EVENTS_URL``.

    Raises:
        SettingError: It has no name of a topic, or ``DEADLETTER_URL`` cannot be used.
    """
    elsewhere = settings.events.deadletter_url
    keeper: Keeper = MemoryLetters()
    if elsewhere:
        keeper = backend_of("DEADLETTER_URL", elsewhere, KEEPERS)(elsewhere, settings)
    return MemorySource(_name("EVENTS_URL", url), settings, processor, keeper)


def open_publisher(url: str, settings: Settings) -> MemoryPublisher:
    """
    Return what publishes to *url*, the value of ``PUBLISH_URL``.

    Raises:
        SettingError: It has no name of a topic.
    """
    return MemoryPublisher(_name("PUBLISH_URL", url))


def open_dead_letters(url: str, settings: Settings) -> MemoryLetters:
    """
    Return what keeps dead letters at *url*, the value of ``DEADLETTER_URL``: in the broker, whatever the name is.

    Raises:
        SettingError: It has no name.
    """
    _name("DEADLETTER_URL", url)
    return MemoryLetters()


def _name(setting: str, url: str) -> str:
    parts = split_url(setting, url)
    if not parts.netloc or parts.path.strip("/") or parts.query or "@" in parts.netloc:
        raise SettingError(setting, "must be a URL with the name of a topic only, such as memory://orders")
    return parts.netloc

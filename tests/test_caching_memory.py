"""The cache in memory against a dict, with a clock of the test's own."""

import asyncio
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from faasbase.caching.memory import MemoryCache

KEYS = st.sampled_from("abcdef")
MAX_ENTRIES, MAX_BYTES = 3, 20


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Model:
    """What the cache should hold: values with their end, the least recently used first."""

    entries: dict[str, tuple[bytes, float]] = field(default_factory=dict)

    def get(self, key: str, now: float) -> bytes | None:
        value, end = self.entries.pop(key, (b"", 0.0))
        if end <= now:
            return None
        self.entries[key] = (value, end)
        return value

    def set(self, key: str, value: bytes, end: float) -> None:
        self.entries.pop(key, None)
        if len(key) + len(value) <= MAX_BYTES:
            self.entries[key] = (value, end)
        while len(self.entries) > MAX_ENTRIES or self.size() > MAX_BYTES:
            del self.entries[next(iter(self.entries))]

    def size(self) -> int:
        return sum(len(key) + len(value) for key, (value, _) in self.entries.items())


class MemoryCacheMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock, self.model = Clock(), Model()
        self.cache = MemoryCache(max_entries=MAX_ENTRIES, max_bytes=MAX_BYTES, clock=self.clock)

    @rule(key=KEYS, value=st.binary(max_size=25), ttl=st.integers(1, 5))
    def set(self, key: str, value: bytes, ttl: int) -> None:
        asyncio.run(self.cache.set(key, value, ttl))
        self.model.set(key, value, self.clock.now + ttl)

    @rule(key=KEYS)
    def get(self, key: str) -> None:
        assert asyncio.run(self.cache.get(key)) == self.model.get(key, self.clock.now)

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        asyncio.run(self.cache.delete(key))
        self.model.entries.pop(key, None)

    @rule(seconds=st.integers(1, 4))
    def wait(self, seconds: int) -> None:
        self.clock.now += seconds

    @invariant()
    def bounds_hold(self) -> None:
        assert len(self.model.entries) <= MAX_ENTRIES
        assert self.model.size() <= MAX_BYTES


MemoryCacheMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestMemoryCacheIsADictWithBounds = MemoryCacheMachine.TestCase


def test_bounds_come_from_the_url() -> None:
    async def kept() -> list[bytes | None]:
        cache = MemoryCache.from_url("memory://?max_entries=1&max_bytes=100")
        await cache.set("a", b"1", 60)
        await cache.set("b", b"2", 60)
        await cache.set("c", b"x" * 100, 60)
        return [await cache.get(key) for key in "abc"]

    assert asyncio.run(kept()) == [None, b"2", None]

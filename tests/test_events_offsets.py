"""What a partition's window commits and what the next owner makes of it: never less than what is unsettled."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from faasbase.events.kafka.offset_metadata import Run, decode
from faasbase.events.kafka.offsets import OffsetWindow

OFFSETS = st.integers(0, 2**62)


def ascending(start: int, gaps: list[int]) -> list[int]:
    """Return the offsets that lie these gaps apart."""
    found = [start]
    for gap in gaps:
        found.append(found[-1] + gap)
    return found


def offsets_in(runs: Iterable[Run]) -> set[int]:
    return {offset for start, stop in runs for offset in range(start, stop)}


def window(offset: int = 0, metadata: str = "", *, max_uncommitted: int = 10) -> OffsetWindow:
    return OffsetWindow(offset, metadata, max_uncommitted=max_uncommitted)


def begun(*offsets: int, settled: Iterable[int] = ()) -> OffsetWindow:
    found = window(offsets[0])
    for offset in offsets:
        found.begin(offset)
    for offset in settled:
        found.settle(offset)
    return found


def heir(dead: OffsetWindow, *, clean: bool = False) -> OffsetWindow:
    """Return the window of the next owner."""
    commit = dead.commit(clean=clean)
    return window(commit.offset, commit.metadata)


def test_committed_offset_moves_only_over_settled_records() -> None:
    found = begun(5, 6, 7, 8, settled=(6, 8))
    assert found.commit().offset == 5
    found.settle(5)
    assert found.commit().offset == 7
    found.settle(7)
    assert found.commit().offset == 9


def test_offsets_that_hold_no_record_count_as_settled() -> None:
    """Compaction leaves gaps between records, markers of transactions behind them."""
    found = begun(5, 9, 20, settled=(5, 9))
    assert found.commit().offset == 20
    found.settle(20)
    found.fetched(23)
    found.fetched(22)
    assert (found.commit().offset, found.position) == (23, 23)


def test_next_owner_runs_only_what_was_not_settled() -> None:
    found = heir(begun(5, 6, 7, 8, 9, settled=(6, 7, 9)))
    assert [found.is_settled(offset) for offset in range(4, 11)] == [True, False, True, True, False, True, False]
    found.begin(5)
    found.settle(5)
    assert found.commit().offset == 8


def test_what_lies_ahead_survives_a_second_owner() -> None:
    """The first successor ends before it comes to what its predecessor had settled further up."""
    second = heir(begun(5, 6, 7, 8, 9, 10, settled=(7, 9)))
    second.begin(5)
    second.begin(6)
    second.settle(6)
    third = heir(second)
    assert [third.is_settled(offset) for offset in range(5, 11)] == [False, True, True, False, True, False]


def test_begin_below_the_position_and_settling_twice_are_mistakes() -> None:
    found = begun(5, 6, settled=(5,))
    with pytest.raises(ValueError, match="below the position"):
        found.begin(5)
    with pytest.raises(KeyError):
        found.settle(5)


def test_commit_is_due_while_the_broker_lacks_something() -> None:
    """At first too, where it holds nothing or the mark of a clean end."""
    found = window(5)
    assert found.dirty
    found.committed(found.commit())
    found.begin(5)
    assert not found.dirty
    for change in (found.attempt, found.ended, found.settle):
        change(5)
        refused = found.commit()
        assert found.dirty
        found.committed(refused)
        assert not found.dirty
    found.begin(6)
    early = found.commit()
    found.settle(6)
    found.committed(early)
    assert found.dirty
    assert heir(found, clean=True).dirty
    assert not heir(found).dirty


def test_bound_counts_from_what_the_broker_has() -> None:
    found = begun(5, 6, 7, settled=(5, 6, 7))
    assert found.uncommitted == 3
    found.committed(found.commit())
    assert found.uncommitted == 0


def test_attempts_are_counted_across_owners_until_the_record_is_settled() -> None:
    found = begun(5, 6)
    assert [found.attempt(5), found.attempt(5), found.attempt(6)] == [1, 2, 1]
    second = heir(found, clean=True)
    assert second.attempts_of(5) == 2
    second.begin(5)
    assert second.attempt(5) == 3
    second.settle(5)
    assert (second.attempts_of(5), heir(second).attempts_of(6)) == (0, 1)
    assert not second._running, "what is settled leaves nothing behind"


def test_attempt_that_is_taken_back_was_none() -> None:
    """Runs that ended with the process are remembered all the same."""
    found = begun(5, 6)
    found.attempt(6)
    for _ in range(3):
        assert found.attempt(5) == 1
        found.take_back(5)
    assert found.attempts_of(5) == 0
    assert heir(found).attempts_of(5) == 0
    second = heir(found)
    second.begin(5)
    second.begin(6)
    assert second.attempt(6) == 2
    second.take_back(6)
    third = heir(second)
    assert (third.attempts_of(6), third.alone(6)) == (1, False)
    second.settle(6)
    second.settle(5)


def test_record_that_waits_for_its_next_run_waits_on_with_other_owners() -> None:
    """Whether or not its run was one of its attempts; what runs, was run or is settled has no pause."""
    found = begun(5, 6, 7, 8)
    for offset in (5, 6, 7, 8):
        found.attempt(offset)
    found.ended(5, 300)
    found.take_back(6, 200)
    found.ended(7)
    for clean in (False, True, True):
        found = heir(found, clean=clean)
        assert 299 <= found.pause(5) <= 300.5
        assert 199 <= found.pause(6) <= 200.5
        assert [found.pause(offset) for offset in (7, 8, 9)] == [0, 0, 0]
        assert [found.attempts_of(offset) for offset in (5, 6, 7)] == [1, 0, 1]
    found.begin(5)
    found.begin(6)
    assert (found.attempt(5), found.attempt(6)) == (2, 1)
    found.ended(6, 300)
    found.settle(6)
    assert not found.pauses
    assert not heir(found).pauses


def test_attempts_of_a_record_that_is_gone_are_forgotten() -> None:
    """Compaction may take a record away between two owners."""
    found = begun(5, 6, 7)
    for offset in (5, 6, 7):
        found.attempt(offset)
    second = heir(found)
    second.begin(5)
    second.begin(7)
    assert [heir(second).attempts_of(offset) for offset in (5, 6, 7)] == [1, 0, 1]
    second.settle(5)
    assert [heir(second).attempts_of(offset) for offset in (5, 6, 7)] == [0, 0, 1]


def test_records_are_suspected_after_an_unclean_end_until_the_old_window_is_past() -> None:
    """Counted in records: compaction may have left few of them in many offsets."""
    dead = begun(5, 6)
    assert not any(dead.suspect(offset) for offset in (5, 6, 14))
    assert not heir(dead, clean=True).suspect(5)
    found = heir(dead)
    for offset in range(5, 1000, 100):
        assert found.suspect(offset)
        found.begin(offset)
    assert found.suspect(905)
    assert not found.suspect(1005)
    found.begin(1005)
    third = heir(found)
    for offset in range(5, 1006, 100):
        assert third.suspect(offset), "one more than the bound allows had been begun"
        third.begin(offset)


def test_only_runs_that_ended_with_the_process_lead_to_running_alone() -> None:
    """Retries do not, nor does a run that was over, nor one that a drain cut off."""
    found = begun(5, 6, 7)
    for clean in (False, True, False):
        for offset in (5, 6):
            found.attempt(offset)
        found.ended(6)
        found = heir(found, clean=clean)
        assert not found.ends_the_process(5, 1)
        for offset in (5, 6, 7):
            found.begin(offset)
    assert [found.alone(offset) for offset in (5, 6, 7)] == [True, False, False]
    assert [found.attempts_of(offset) for offset in (5, 6, 7)] == [3, 3, 0]


def test_record_that_ends_the_process_alone_is_given_up() -> None:
    found = begun(5)
    for attempt in range(1, 6):
        assert found.attempt(5) == attempt
        found = heir(found)
        assert found.alone(5) == (attempt >= 2)
        assert [found.ends_the_process(5, most) for most in (1, 3, 5)] == [attempt >= 3, attempt >= 3, attempt >= 5]
        found.begin(5)


@dataclass
class Partition:
    """What a broker has, and what its consumers, ended again and again, do with it by the window's rules."""

    rng: random.Random
    records: list[int]
    killers: set[int]
    max_uncommitted: int
    committed: tuple[int, str] = (0, "")
    settled: set[int] = field(default_factory=set)
    given_up: list[int] = field(default_factory=list)

    def consume(self) -> bool:
        """Run one process; False if a record ended it."""
        self.window = window(*self.committed, max_uncommitted=self.max_uncommitted)
        self.commit()
        self.waiting, self.lanes = list[int](), list[int]()
        self.ahead = [at for at in self.records if at >= self.committed[0] and not self.window.is_settled(at)]
        while self.ahead or self.waiting or self.lanes:
            self.fetch()
            self.start()
            if self.lanes and self.rng.random() < 0.4:
                at = self.lanes.pop(self.rng.randrange(len(self.lanes)))
                if at in self.killers:
                    return False
                self.settle(at)
            if self.rng.random() < 0.1 or self.window.uncommitted >= self.max_uncommitted:
                self.commit()
        return True

    def fetch(self) -> None:
        if self.ahead and self.window.uncommitted < self.max_uncommitted:
            self.waiting.append(self.ahead.pop(0))
            self.window.begin(self.waiting[-1])

    def start(self) -> None:
        """Give the next record a lane if one is free, or all of them to one that must run alone."""
        if not self.waiting or len(self.lanes) == 4 or any(map(self.window.alone, self.lanes)):
            return
        at = self.waiting[0]
        if self.window.ends_the_process(at, 3):
            self.given_up.append(self.waiting.pop(0))
            self.settle(at)
        elif not (self.lanes and self.window.alone(at)):
            self.lanes.append(self.waiting.pop(0))
            self.window.attempt(at)
            if self.window.suspect(at):
                self.commit()

    def settle(self, at: int) -> None:
        self.window.settle(at)
        self.settled.add(at)

    def commit(self) -> None:
        if self.window.dirty:
            commit = self.window.commit()
            self.committed = (commit.offset, commit.metadata)
            self.window.committed(commit)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 12))
def test_every_record_that_ends_the_process_is_found_and_no_other(
    seed: int, gaps: list[int], max_uncommitted: int
) -> None:
    rng, records = random.Random(seed), ascending(0, gaps)
    killers = set(rng.sample(records, min(2, len(records))))
    partition = Partition(rng, records, killers, max_uncommitted)
    ends = 0
    while not partition.consume():
        ends += 1
        assert ends <= 4 * len(killers)
    assert set(partition.given_up) == killers
    assert partition.settled == set(records)


class WindowMachine(RuleBasedStateMachine):
    """Owners that follow each other on a partition with gaps, against the set of what is really settled."""

    @initialize(gaps=st.lists(st.sampled_from((1, 1, 1, 2, 50)), min_size=30, max_size=60), start=OFFSETS)
    def begin_partition(self, gaps: list[int], start: int) -> None:
        self.records = ascending(start, gaps)
        self.settled: set[int] = set()
        self.open: list[int] = []
        self.resume(start, "")

    def resume(self, offset: int, metadata: str) -> None:
        self.window = window(offset, metadata)
        self.open = []
        self.ahead = [record for record in self.records if record >= offset]

    @precondition(lambda self: self.ahead)
    @rule(count=st.integers(1, 5))
    def fetch(self, count: int) -> None:
        for record in self.ahead[:count]:
            if not self.window.is_settled(record):
                self.window.begin(record)
                self.open.append(record)
        self.window.fetched(self.ahead[:count][-1] + 1)
        self.ahead = self.ahead[count:]

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        record = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        self.window.settle(record)
        self.settled.add(record)

    @rule(clean=st.booleans())
    def hand_over(self, clean: bool) -> None:
        commit = self.window.commit(clean=clean)
        self.resume(commit.offset, commit.metadata)
        assert self.window.unreadable is None

    @invariant()
    def settled_is_what_was_settled(self) -> None:
        for record in self.records:
            assert self.window.is_settled(record) == (record in self.settled)
        unsettled = [record for record in self.records if record not in self.settled]
        commit = self.window.commit()
        assert commit.offset <= min(unsettled, default=commit.offset)
        known = offsets_in(decode(commit.offset, commit.metadata).settled)
        assert known.isdisjoint(unsettled)
        assert {record for record in self.settled if record > commit.offset} <= known


WindowMachine.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
TestWindowKnowsWhatIsSettled = WindowMachine.TestCase

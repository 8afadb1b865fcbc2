"""The breaker and the back-off, with a clock and a dice of the test's own."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faasbase.resilience import Breaker, State, backoff


@dataclass
class Clock:
    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Setup:
    clock: Clock = field(default_factory=Clock)
    states: list[State] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.breaker = Breaker(failures=3, open_seconds=10, on_change=self.states.append, clock=self.clock)

    def fail(self, times: int) -> None:
        for _ in range(times):
            self.breaker.failed()


def test_opens_after_failures_in_a_row_only() -> None:
    setup = Setup()
    setup.fail(2)
    setup.breaker.succeeded()
    setup.fail(2)
    assert (setup.breaker.allow(), setup.states) == (True, [])
    setup.fail(1)
    assert (setup.breaker.allow(), setup.breaker.closed, setup.states) == (False, False, [State.OPEN])


def test_one_try_is_let_through_after_the_time_and_closes_it() -> None:
    setup = Setup()
    setup.fail(3)
    setup.clock.now += 9.9
    assert not setup.breaker.allow()
    setup.clock.now += 0.1
    assert [setup.breaker.allow() for _ in range(3)] == [True, False, False]
    setup.breaker.succeeded()
    assert setup.breaker.allow()
    assert setup.states == [State.OPEN, State.HALF_OPEN, State.CLOSED]


def test_failed_try_keeps_it_open_for_another_time() -> None:
    setup = Setup()
    setup.fail(3)
    setup.clock.now += 10
    assert setup.breaker.allow()
    setup.breaker.failed()
    setup.clock.now += 9
    assert not setup.breaker.allow()
    setup.clock.now += 1
    assert setup.breaker.allow()


def test_try_that_never_tells_is_replaced() -> None:
    setup = Setup()
    setup.fail(3)
    setup.clock.now += 10
    assert setup.breaker.allow()
    setup.clock.now += 10
    assert [setup.breaker.allow(), setup.breaker.allow()] == [True, False]


def test_late_answer_to_what_was_asked_before_does_not_close_it() -> None:
    setup = Setup()
    setup.fail(3)
    setup.breaker.succeeded()
    assert (setup.breaker.allow(), setup.states) == (False, [State.OPEN])


@pytest.mark.parametrize("bad", [{"failures": 0}, {"open_seconds": 0}, {"open_seconds": float("nan")}])
def test_breaker_that_makes_no_sense_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="breaker"):
        Breaker(**bad)  # type: ignore[arg-type]


@given(attempt=st.integers(0, 10_000), dice=st.floats(0, 1), base=st.floats(0.001, 10), cap=st.floats(0.01, 100))
def test_backoff_is_between_nothing_and_the_cap(attempt: int, dice: float, base: float, cap: float) -> None:
    assert 0 <= backoff(attempt, base, cap, lambda: dice) <= min(cap, base * 2 ** min(attempt, 63))


def test_backoff_doubles_until_the_cap() -> None:
    assert [backoff(attempt, 1, 5, lambda: 1.0) for attempt in range(5)] == [1, 2, 4, 5, 5]

"""The parts that a row of the contract table is made of."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

T = TypeVar("T")
Target = Literal["ours", "of-watchdog"]
Pattern = str | re.Pattern[str]

PRESENT = re.compile(r".+", re.DOTALL)
DURATION = re.compile(r"\d+\.\d{6}")


@dataclass(frozen=True)
class Differs(Generic[T]):
    """What is expected of us and what of of-watchdog; the row says why."""

    ours: T
    watchdog: T


@dataclass(frozen=True)
class Expected:
    """
    What an answer must be.  What is left at its default is not compared.

    A header of ``None`` must be absent.  *seconds* are the least and the most that the answer may take, *pieces* the
    moments at which the parts of its body may arrive at the earliest and must have arrived at the latest.
    """

    status: int
    body: Pattern | None = None
    headers: Mapping[str, Pattern | None] = field(default_factory=dict)
    seconds: tuple[float, float] = (0.0, 5.0)
    first_piece_before: float | None = None
    first_piece_after: float | None = None


CLOSED = Expected(0)
"""The connection is refused, or closed before a whole answer came."""

EITHER = Expected(-1)
"""Answered or not: a race that nobody should count on."""


@dataclass(frozen=True)
class Call:
    """Make a call and compare the answer; *raw* sends these bytes instead of a well-formed request."""

    path: str
    expected: Expected | Differs[Expected]
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    raw: bytes | None = None
    to_metrics: bool = False


@dataclass(frozen=True)
class Hold:
    """Make a call and go on; its answer is compared at the end of the row."""

    call: Call
    for_seconds: float = 0.1


@dataclass(frozen=True)
class SlowBody:
    """Announce a body, send half of it, and compare what comes after a time of silence."""

    path: str
    expected: Expected | Differs[Expected]


@dataclass(frozen=True)
class AskFirst:
    """Announce *body* with ``Expect: 100-continue``, wait for the interim answer, send it and compare the answer."""

    path: str
    expected: Expected
    body: bytes


@dataclass(frozen=True)
class Signal:
    """Send a signal to the process that Kubernetes would signal."""

    name: Literal["SIGTERM", "SIGINT"]


@dataclass(frozen=True)
class Pause:
    """Let time pass."""

    seconds: float


@dataclass(frozen=True)
class Exits:
    """The process ends with *status* (negative: by that signal) within *seconds* after the last signal."""

    status: int | Differs[int]
    seconds: tuple[float, float] | Differs[tuple[float, float]] = (0.0, 10.0)


@dataclass(frozen=True)
class LivesOn:
    """The process is still there."""


@dataclass(frozen=True)
class LockFile:
    """The lock file exists, or does not."""

    exists: bool | Differs[bool]


@dataclass(frozen=True)
class Write:
    """Create an empty file in TMPDIR."""

    name: str


@dataclass(frozen=True)
class Remove:
    """Delete a file in TMPDIR."""

    name: str


@dataclass(frozen=True)
class Refused:
    """The process does not start: it ends with *status* and says *why*."""

    why: str
    status: int = 1


@dataclass(frozen=True)
class Only:
    """A step for one of the two only."""

    target: Target
    step: Step


Step = Call | Hold | SlowBody | AskFirst | Signal | Pause | Exits | LivesOn | LockFile | Write | Remove | Refused | Only


@dataclass(frozen=True)
class Row:
    """
    One behaviour: with these settings, these steps.

    *source* says where the expectation comes from.  *differs* says why ours is another one on purpose, and is empty
    when both must do the same.
    """

    name: str
    source: str
    steps: Sequence[Step]
    settings: Mapping[str, str | None] = field(default_factory=dict)
    differs: str = ""

    def has_difference(self) -> bool:
        """Tell whether a step expects something else of ours than of of-watchdog."""
        return any(_differs(step) for step in self.steps)

    def refusals(self, target: Target) -> list[Refused]:
        """Return the refusal that *target* must start with, in a list that is empty where it must start."""
        steps = [s.step if isinstance(s, Only) and s.target == target else s for s in self.steps]
        return [step for step in steps if isinstance(step, Refused)]


def _differs(step: Step) -> bool:
    if isinstance(step, Hold):
        step = step.call
    return isinstance(step, Only) or any(isinstance(v, Differs) for v in vars(step).values())

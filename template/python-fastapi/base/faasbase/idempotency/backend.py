"""What records of operations are kept in, chosen by the scheme of ``IDEMPOTENCY_URL``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Claim:
    """One run that wants an operation for itself."""

    name: str
    """The record's: function, handler, version, and a digest of the key."""
    token: str
    """Random, and known to this run only."""
    fingerprint: str
    """Of the payload; under one name there is one."""
    lease_seconds: float
    """How long the run is the owner unless it renews that."""
    keep_seconds: float
    """How long a result, and what is known of a run that has ended without one, is kept."""


@dataclass(frozen=True, slots=True)
class Owned:
    """The operation is the claim's until its lease ends."""

    fence: int
    """Greater than that of every owner before."""
    taken_over: bool = False
    """Whether an owner before has let its lease end, and may have done anything or nothing."""


@dataclass(frozen=True, slots=True)
class Running:
    """Another run is the owner, for *left_seconds* or longer."""

    left_seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    """A run before has ended with *result*."""

    result: bytes


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The name is known, with another payload."""


Begun = Owned | Running | Done | Mismatch


class RecordBackend(Protocol):
    """
    Keeps records; each method is one step that no other run comes in between, and may be repeated by its run.

    Raises:
        RecordsError: It cannot be asked, or does not answer in time: the step may have been done.
    """

    deadline_seconds: float
    max_result_bytes: int

    async def begin(self, claim: Claim) -> Begun:
        """Make *claim* the owner where there is none, or tell what there is."""

    async def renew(self, claim: Claim, fence: int) -> bool:
        """Begin the owner's lease anew and tell whether it was the owner; one that was lost is made again."""

    async def finish(self, claim: Claim, fence: int, result: bytes) -> Done | Running | None:
        """
        Store the owner's *result*; where another run has become the owner, return what there is of that.

        A record that was lost is made again, unless *fence* is 0: then it may have been another run's.
        """

    async def release(self, claim: Claim) -> None:
        """Let the next run begin at once, if *claim* is the owner."""

    async def once(self, claim: Claim, step: str, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        """
        Run the Lua *script* if *claim* is the owner and no run before has got through *step*; else return its reply.

        Raises:
            OperationLostError: Another run is the owner.
            EffectError: The script failed.
        """

    async def close(self) -> None: ...

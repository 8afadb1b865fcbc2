"""The records of one process's handlers: begins operations, waits for those that others carry out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from secrets import token_hex
from typing import Any, TypeVar
from uuid import UUID

from ..errors import SettingError
from ..loops import running_loop
from ..owned import OwnedTasks
from ..resilience import backoff, look_pause
from .attempt import OUTCOMES, Attempt
from .backend import Begun, Claim, Done, Mismatch, Owned, RecordBackend, Running
from .errors import LeftAloneError, RecordsError, unavailable
from .guard import Guard
from .operation import Operation

T = TypeVar("T")

MAX_WAITING = 1000
"""Calls of a process that wait for others at a time; more are told at once that one is in progress."""

_PATIENCE_SECONDS = 60.0
"""Of a thread, for what the loop does within the backend's deadline; past it the loop must be stuck."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a call wants done: the operation, and for how long its parts may last."""

    function: str
    key: str
    fingerprint: str
    lease_seconds: float
    keep_seconds: float
    wait_seconds: float


@dataclass(slots=True, eq=False)
class Ledger:
    """
    Carries out each operation by one owner at a time; fails closed.

    Keys get *namespace* in front, so that functions which share a server do not share operations.
    """

    backend: RecordBackend
    namespace: str = ""
    guard: Guard = field(default_factory=Guard)
    """In front of whatever begins; a run under way goes on asking, since its end has to be recorded."""
    loop: asyncio.AbstractEventLoop | None = None
    """Where the backend is asked; threads get there by `ask`."""
    tasks: OwnedTasks = field(default_factory=OwnedTasks)
    """Record the ends of runs."""
    releases: OwnedTasks = field(default_factory=OwnedTasks)
    """End leases that were given away unheard: however many those are, the runs that ended keep their room."""
    waiting: int = 0

    async def begin(self, wanted: Wanted) -> Attempt | Done | Running | Mismatch:
        """
        Return the run that now owns the operation; else what is known of it, after waiting where that is wanted.

        Raises:
            Problem: 503, the records cannot be asked.
        """
        claim = self._claim(wanted)
        until, looks = time.monotonic() + wanted.wait_seconds, 0
        while True:
            asked_at = asyncio.get_running_loop().time()
            begun = await self._ask(claim, wanted.function)
            left = until - time.monotonic()
            if not isinstance(begun, Running) or left <= 0:
                break
            if not await self._wait(min(left, begun.left_seconds), looks):
                break
            looks += 1
        if isinstance(begun, Owned):
            self.guard.recorded()
            if begun.taken_over:
                OUTCOMES.inc(function=wanted.function, outcome="taken_over")
            return self._attempt(claim, begun.fence, asked_at + claim.lease_seconds, wanted.function)
        OUTCOMES.inc(function=wanted.function, outcome=_outcome(begun, looks))
        return begun

    def ask(self, step: Coroutine[Any, Any, T], *, wait_seconds: float = 0.0) -> T:
        """
        Do *step*, which may wait for others *wait_seconds*, on the loop and return its result to the thread that asks.

        Raises:
            RuntimeError: Asked from an event loop's own thread, or without one that runs.
        """
        if self.loop is None or not self.loop.is_running() or running_loop() is not None:
            step.close()
            raise RuntimeError("an idempotent def is called from a thread of a running function, as FastAPI does")
        future = asyncio.run_coroutine_threadsafe(step, self.loop)
        try:
            return future.result(wait_seconds + _PATIENCE_SECONDS)
        except TimeoutError:
            future.cancel()
            raise unavailable() from None

    async def close(self) -> None:
        """Give what is being recorded a moment, and let the backend go."""
        await asyncio.gather(self.tasks.close(), self.releases.close())
        await self.backend.close()

    def _claim(self, wanted: Wanted) -> Claim:
        prefix = f"faas:{self.namespace}:" if self.namespace else ""
        # In front: behind the namespace it would be the name of an entry in the cache, under a key that spells it.
        name = f"idempotent:{prefix}{wanted.key}"
        return Claim(name, token_hex(16), wanted.fingerprint, wanted.lease_seconds, wanted.keep_seconds)

    def _attempt(self, claim: Claim, fence: int, leased_until: float, function: str) -> Attempt:
        operation = Operation(_id_of(claim.name), fence, claim, self.backend, self.ask)
        return Attempt(self.backend, claim, operation, self.tasks, leased_until, function)

    async def _ask(self, claim: Claim, function: str) -> Begun:
        try:
            with self.guard.asking():
                return await self.backend.begin(claim)
        except RecordsError as exc:
            if not isinstance(exc, LeftAloneError):
                self.releases.start(self._abandon(claim), "idempotency release")
            OUTCOMES.inc(function=function, outcome="unavailable")
            raise unavailable() from exc
        except asyncio.CancelledError:
            self.releases.start(self._abandon(claim), "idempotency release")
            raise

    async def _abandon(self, claim: Claim) -> None:
        """End a lease that may have been given away unheard: nothing has run under it."""
        until = time.monotonic() + claim.lease_seconds
        for count in range(1_000_000):
            try:
                await self.backend.release(claim)
                return
            except RecordsError:
                pause = 0.05 + backoff(count, 0.1, 2.0)
            if time.monotonic() + pause > until:
                return
            await asyncio.sleep(pause)

    async def _wait(self, longest: float, looks: int) -> bool:
        if self.waiting >= MAX_WAITING:
            return False
        self.waiting += 1
        try:
            await asyncio.sleep(max(0.001, min(longest, look_pause(looks))))
        finally:
            self.waiting -= 1
        return True


def _outcome(begun: Begun, looks: int) -> str:
    if isinstance(begun, Done):
        return "waited" if looks else "replayed"
    return "in_progress" if isinstance(begun, Running) else "mismatch"


def _id_of(name: str) -> str:
    """Return the operation's id, a UUID of version 8 (RFC 9562), which a lost record does not change."""
    raw = bytearray(sha256(name.encode()).digest()[:16])
    raw[6], raw[8] = raw[6] & 0x0F | 0x80, raw[8] & 0x3F | 0x80
    return str(UUID(bytes=bytes(raw)))


_active: list[Ledger] = []


@contextmanager
def activate_ledger(ledger: Ledger | None) -> Iterator[None]:
    """Make *ledger* what `current_ledger` returns; the caller still closes it."""
    if ledger is None:
        yield
        return
    ledger.loop = asyncio.get_running_loop()
    _active.append(ledger)
    try:
        yield
    finally:
        _active.remove(ledger)


def current_ledger() -> Ledger:
    """
    Return the ledger of this process.

    Raises:
        SettingError: There is none: a record that only this process knew would be none for the other replicas.
    """
    if _active:
        return _active[-1]
    raise SettingError("IDEMPOTENCY_URL", "names no place for the records of @idempotent")

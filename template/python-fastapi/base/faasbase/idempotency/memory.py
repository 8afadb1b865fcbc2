"""Records in the memory of one process: for tests, local work and functions that never have a second replica."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..backends import counts_in_query
from .backend import Begun, Claim, Done, Mismatch, Owned, Running
from .errors import RecordsError

_DEFAULTS = {"max_entries": 10_000, "max_result_bytes": 1024 * 1024}


@dataclass(slots=True)
class _Record:
    fingerprint: str
    kept_until: float
    token: str = ""
    fence: int = 0
    leased_until: float = 0.0
    result: bytes | None = None


class MemoryRecords:
    """
    Keep at most *max_entries* records; none is dropped early, so where all are in use nothing more begins.

    Belongs to one event loop.  *clock* is in seconds and must not go backwards.
    """

    deadline_seconds = 1.0

    def __init__(
        self,
        max_entries: int = _DEFAULTS["max_entries"],
        max_result_bytes: int = _DEFAULTS["max_result_bytes"],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_result_bytes = max_result_bytes
        self._max_entries, self._clock = max_entries, clock
        self._records: dict[str, _Record] = {}

    @classmethod
    def from_url(cls, setting: str, url: str) -> MemoryRecords:
        """Read the options ``max_entries`` and ``max_result_bytes``."""
        options = counts_in_query(setting, url, _DEFAULTS)
        return cls(options["max_entries"], options["max_result_bytes"])

    async def begin(self, claim: Claim) -> Begun:
        now = self._clock()
        record = self._find(claim.name) or self._add(claim)
        if record.fingerprint != claim.fingerprint:
            return Mismatch()
        if record.result is not None:
            return Done(record.result)
        if record.token and record.token != claim.token and record.leased_until > now:
            return Running(record.leased_until - now)
        taken_over = record.token not in ("", claim.token)
        if record.token != claim.token:
            # By the clock, so that fences rise over the end of records and of this process.
            record.fence = max(record.fence + 1, time.time_ns() // 1000)
        self._hold(record, claim)
        return Owned(record.fence, taken_over)

    async def renew(self, claim: Claim, fence: int) -> bool:
        record = self._find(claim.name)
        if record is None:
            if not fence:
                return False
            record = self._add(claim)
            record.fence = fence
        elif record.token != claim.token or record.result is not None:
            return False
        self._hold(record, claim)
        return True

    async def finish(self, claim: Claim, fence: int, result: bytes) -> Done | Running | None:
        record = self._find(claim.name)
        if record is None:
            if not fence:
                return Running(0.0)
            record = self._add(claim)
            record.fence, record.token = fence, claim.token
        if record.token != claim.token:
            known = record.result if record.fingerprint == claim.fingerprint else None
            return Running(0.0) if known is None else Done(known)
        record.result, record.kept_until = result, self._clock() + claim.keep_seconds
        return None

    async def release(self, claim: Claim) -> None:
        record = self._find(claim.name)
        if record is not None and record.token == claim.token and record.result is None:
            record.token, record.kept_until = "", self._clock() + claim.keep_seconds

    async def once(self, claim: Claim, step: str, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        raise RuntimeError("Operation.once runs on the server of the records: it needs IDEMPOTENCY_URL=redis://…")

    async def close(self) -> None:
        self._records.clear()

    def _find(self, name: str) -> _Record | None:
        record = self._records.get(name)
        if record is not None and record.kept_until <= self._clock():
            del self._records[name]
            return None
        return record

    def _add(self, claim: Claim) -> _Record:
        if len(self._records) >= self._max_entries:
            self._forget()
        if len(self._records) >= self._max_entries:
            raise RecordsError("there is no room for one more", answered=True)
        record = self._records[claim.name] = _Record(claim.fingerprint, self._clock() + claim.keep_seconds)
        return record

    def _hold(self, record: _Record, claim: Claim) -> None:
        now = self._clock()
        record.token, record.leased_until = claim.token, now + claim.lease_seconds
        record.kept_until = now + max(claim.keep_seconds, 2 * claim.lease_seconds)

    def _forget(self) -> None:
        now = self._clock()
        for name in [name for name, record in self._records.items() if record.kept_until <= now]:
            del self._records[name]

"""Records on a Redis server, which replicas share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ..backends import UrlOptions
from ..caching.options import NAMES as CACHE_OPTIONS
from ..connections import ConnectionsError, RedisConnections, RefusedError, Script, redis_connections
from ..durations import milliseconds
from ..redis_place import place_of
from .backend import Begun, Claim, Done, Mismatch, Owned, Running
from .errors import EffectError, OperationLostError, RecordsError
from .scripts import BEGIN, FINISH, RELEASE, RENEW, once

_OPTIONS = frozenset({"deadline", "max_result_bytes"})
_DEADLINE_SECONDS, _LONGEST_SECONDS = 2.0, 30.0
_MAX_RESULT_BYTES = 1024 * 1024
_UNABLE = ("LOADING", "MASTERDOWN", "BUSY", "CLUSTERDOWN")
_TAKES_NOTHING = ("OOM", "MISCONF", "READONLY", "NOREPLICAS")
"""Answers of a server that can still be read: full, unable to save, a replica."""

_effect = lru_cache(maxsize=256)(once)


class RedisRecords:
    """
    Keep records on the server that *connections* ask, whose clock is the only one that leases go by.

    Its user needs: EVALSHA EVAL TIME HMGET HSET HDEL EXISTS DEL PEXPIRE, and what effects need.
    """

    def __init__(
        self,
        connections: RedisConnections,
        deadline_seconds: float = _DEADLINE_SECONDS,
        max_result_bytes: int = _MAX_RESULT_BYTES,
    ) -> None:
        self.deadline_seconds, self.max_result_bytes = deadline_seconds, max_result_bytes
        self._connections = connections

    @classmethod
    def from_url(cls, setting: str, url: str) -> RedisRecords:
        """Read the place as `redis_connections` does, and the options ``deadline`` and ``max_result_bytes``."""
        # The cache's URL may be ours too; its options are its own: a call does not wait 250 ms for a miss here.
        ours = setting != "CACHE_URL"
        also = _OPTIONS if ours else CACHE_OPTIONS
        _, texts = place_of(setting, url, also)
        options = UrlOptions(setting, texts if ours else {})
        return cls(
            redis_connections(url, setting=setting, also=also),
            options.seconds("deadline", _DEADLINE_SECONDS, least=0.01, most=_LONGEST_SECONDS),
            options.count("max_result_bytes", _MAX_RESULT_BYTES),
        )

    async def begin(self, claim: Claim) -> Begun:
        times = milliseconds(claim.lease_seconds), _kept(claim)
        reply = await self._script(BEGIN, claim, claim.fingerprint, *times)
        if reply[0] == b"owned":
            return Owned(int(reply[1]), bool(reply[2]))
        if reply[0] == b"done":
            return Done(reply[1])
        return Running(reply[1] / 1000) if reply[0] == b"running" else Mismatch()

    async def renew(self, claim: Claim, fence: int) -> bool:
        times = milliseconds(claim.lease_seconds), _kept(claim)
        return bool(await self._script(RENEW, claim, claim.fingerprint, *times, fence))

    async def finish(self, claim: Claim, fence: int, result: bytes) -> Done | Running | None:
        kept = milliseconds(claim.keep_seconds)
        reply = await self._script(FINISH, claim, claim.fingerprint, kept, fence, result)
        if reply[0] == b"stored":
            return None
        return Done(reply[1]) if reply[0] == b"done" else Running(0.0)

    async def release(self, claim: Claim) -> None:
        await self._script(RELEASE, claim, milliseconds(claim.keep_seconds))

    async def once(self, claim: Claim, step: str, script: str, keys: Sequence[str], args: Sequence[Any]) -> Any:
        try:
            reply = await self._script(_effect(script), claim, step, *args, keys=keys)
        except _RefusedStepError as exc:
            raise EffectError(exc.code) from None
        if reply[0] == b"lost":
            raise OperationLostError
        return reply[1] if len(reply) > 1 else None

    async def close(self) -> None:
        await self._connections.close()

    async def _script(self, script: Script, claim: Claim, *args: Any, keys: Sequence[str] = ()) -> Any:
        try:
            # Each of them, done twice with the same token, is as good as once.
            return await self._connections.script(
                script, (claim.name, *keys), (claim.token, *args), self.deadline_seconds, repeatable=True
            )
        except RefusedError as exc:
            if exc.code in (*_UNABLE, *_TAKES_NOTHING):
                raise RecordsError(str(exc), answered=exc.code in _TAKES_NOTHING) from None
            raise _RefusedStepError(exc.code) from None
        except (ConnectionsError, TimeoutError) as exc:
            raise RecordsError(str(exc) or "the server does not answer in time") from None


class _RefusedStepError(RecordsError):
    """The server says no to this step, for a reason of its own."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(f"the server answers with {code}", answered=True)


def _kept(claim: Claim) -> int:
    return milliseconds(max(claim.keep_seconds, 2 * claim.lease_seconds))

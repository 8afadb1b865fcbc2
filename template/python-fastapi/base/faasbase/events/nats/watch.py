"""How a consumer of NATS is doing, asked of its server now and then: lag, what it has received, whether it is there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError

from ..telemetry import LAG, LAG_SECONDS, LANES
from .acks import Acks
from .connection import NatsConnection
from .consumer import manager

logger = logging.getLogger("faasbase.events")

_IDLE_SECONDS = 5.0
_SOON_SECONDS = 0.5


class Watch:
    """
    Looks after *commit_seconds* where something has happened, else after a while, and confirms *acks*.

    *failed* is called with why fetching cannot go on: the consumer is gone, or credentials are refused for longer than
    *refusal_seconds*.
    """

    def __init__(
        self,
        connection: NatsConnection,
        acks: Acks,
        failed: Callable[[str], None],
        *,
        commit_seconds: float,
        refusal_seconds: float,
    ) -> None:
        self._connection, self._place, self._acks, self._failed = connection, connection.place, acks, failed
        self._commit_seconds, self._refusal_seconds = commit_seconds, refusal_seconds
        self._has_moved = False
        self._missing = 0

    @property
    def gone(self) -> str:
        """What to say where there is no consumer any more."""
        return f"the consumer {self._place.durable} of the stream {self._place.name} is gone"

    def taken(self, written_at: float | None, running: int) -> None:
        """Count a message that was written at *written_at*, in seconds since 1970; *running* lanes are in use."""
        self._has_moved = True
        LANES.set(running, destination=self._place.name, partition="")
        if written_at is not None:
            age = max(0.0, time.time() - written_at)
            LAG_SECONDS.set(age, destination=self._place.name, partition="")

    async def run(self, running: Callable[[], int]) -> None:
        """Look again and again."""
        while True:
            await self._look()
            LANES.set(running(), destination=self._place.name, partition="")
            is_well = self._connection.current is not None and not self._missing
            await self._pause(_IDLE_SECONDS if is_well else _SOON_SECONDS)

    async def ask(self) -> None:
        """
        Ask the server; once it answers, it has what was acknowledged before.

        Raises:
            NatsError: It does not tell.
        """
        sent = self._acks.sent()
        info = await (await manager(self._connection)).consumer_info(self._place.name, self._place.durable)
        self._acks.confirm(sent)
        lag = (info.num_pending or 0) + (info.num_ack_pending or 0)
        LAG.set(lag, destination=self._place.name, partition="")
        if not lag:
            LAG_SECONDS.set(0.0, destination=self._place.name, partition="")

    async def _look(self) -> None:
        if self._connection.current is None:
            self._check_refusal()
            return
        try:
            async with asyncio.timeout(_IDLE_SECONDS):
                await self.ask()
            self._missing = 0
        except NotFoundError:
            # A cluster that has just started may not know all of its streams yet.
            self._missing += 1
            if self._missing > 1:
                self._failed(self.gone)
        except (NatsError, OSError, TimeoutError) as exc:
            logger.debug("NATS does not tell of the consumer %s: %s", self._place.durable, exc)

    def _check_refusal(self) -> None:
        refused_at = self._connection.refused_at
        if refused_at is not None and time.monotonic() - refused_at > self._refusal_seconds:
            self._failed(f"NATS at {self._place.shown} refuses the credentials")

    async def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(min(self._commit_seconds, seconds))
            if self._acks.unconfirmed or self._has_moved:
                self._has_moved = False
                return

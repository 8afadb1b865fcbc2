"""Calls at a steady rate to a changing set of processes, each call checked."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tests.wire import HOST, Connection, WireError, connect, request_bytes

MAX_POOLED = 16
MAX_OPEN_CALLS = 2000
# Most calls are short, so that two hundred a second do not pile up; every twentieth takes three seconds.
SECONDS = (*[0.0] * 16, 0.1, 0.3, 1.0, 3.0)
BODY_BYTES = (0, 0, 1, 100, 10_000, 100_000)


@dataclass(eq=False)
class Replica:
    """A process that calls may go to until *until*, and its idle connections."""

    name: str
    port: int
    host: str = HOST
    until: float = float("inf")
    pool: list[Connection] = field(default_factory=list)

    @property
    def routable(self) -> bool:
        """Tell whether a caller may still choose it."""
        return time.monotonic() < self.until


@dataclass
class Load:
    """Random calls of ``POST /work?seconds=…``, which answers ``{"bytes": …}``; half of them on pooled connections."""

    rate: float
    seed: int
    replicas: list[Replica] = field(default_factory=list)
    done: int = 0
    pooled: int = 0
    failures: list[str] = field(default_factory=list)
    too_late: list[str] = field(default_factory=list)
    _calls: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Load]:
        """Make calls while the block lasts, then wait for the answers that are still due."""
        ticking = asyncio.create_task(self._tick())
        try:
            yield self
        finally:
            ticking.cancel()
            await asyncio.gather(ticking, return_exceptions=True)
            await asyncio.wait_for(asyncio.gather(*self._calls), 15)
            for connection in (c for replica in self.replicas for c in replica.pool):
                connection.close()

    async def _tick(self) -> None:
        start = time.monotonic()
        for number in range(1_000_000):
            await asyncio.sleep(max(0.0, start + number / self.rate - time.monotonic()))
            routable = [replica for replica in self.replicas if replica.routable]
            if routable and len(self._calls) < MAX_OPEN_CALLS:
                task = asyncio.create_task(self._call(self._random.choice(routable)))
                self._calls.add(task)
                task.add_done_callback(self._calls.discard)

    async def _call(self, replica: Replica) -> None:
        seconds, size = self._random.choice(SECONDS), self._random.choice(BODY_BYTES)
        pooled = bool(replica.pool) and self._random.random() < 0.5
        connection: Connection | None = None
        problem = ""
        try:
            connection = replica.pool.pop(0) if pooled else await connect(replica.port, replica.host)
            await connection.send(request_bytes("POST", f"/work?seconds={seconds}", body=self._random.randbytes(size)))
            answer = await connection.answer(method="POST", timeout_seconds=12)
        except (OSError, EOFError, WireError) as error:
            problem = repr(error)
        else:
            self._keep(replica, connection, last=answer.header("connection") == "close")
            if (answer.status, answer.text) != (200, f'{{"bytes":{size}}}'):
                problem = str(answer)
        self.done += 1
        self.pooled += pooled
        if problem:
            asked_at = connection.sent_at if connection else time.monotonic()
            what = f"{replica.name}: {seconds} s, {size} bytes, {pooled=}, {replica.until - asked_at:.2f} s left"
            # On a busy machine this very process may have come to ask only when the replica was free to refuse.
            (self.failures if asked_at <= replica.until else self.too_late).append(f"{what}: {problem}")

    def _keep(self, replica: Replica, connection: Connection, *, last: bool) -> None:
        if len(replica.pool) < MAX_POOLED and replica.routable and not last:
            replica.pool.append(connection)
        else:
            connection.close()


def report(failures: Sequence[str]) -> str:
    """Return the first failures, for the message of an assertion."""
    return f"{len(failures)} calls failed\n" + "\n".join(failures[:20])

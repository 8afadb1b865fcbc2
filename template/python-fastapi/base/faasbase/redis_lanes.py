"""
A few connections that all callers of one event loop share: what is asked in one turn of it travels together.

Whoever asks waits for its own reply and its own deadline, and may be cancelled: the batch goes on without it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Any

from .connection_errors import ConnectionsError, RefusedError
from .redis_lane import Command, Identity, Lane
from .redis_place import Place

MAX_LANES = 4
"""Connections at most: a second one is made while the first is waiting for an answer."""
MAX_BATCH = 256
"""Commands that travel together at most, so that a late one is not behind thousands."""
MAX_WAITING = 20_000
"""Commands that wait for a connection at most; more are refused at once."""


@dataclass(slots=True, eq=False)
class _Turn:
    """The commands of one turn of the loop with one deadline, which share its timer."""

    expires_at: float
    calls: list[_Call]
    left: int = 0
    timer: asyncio.TimerHandle | None = None

    def expire(self) -> None:
        for call in self.calls:
            if not call.reply.done():
                call.reply.set_exception(TimeoutError("the server did not answer in time"))


@dataclass(slots=True, eq=False)
class _Call:
    command: Command
    reply: asyncio.Future[Any]
    turn: _Turn
    repeatable: bool

    def settle(self, reply: Any) -> None:
        """Hand *reply* over, if somebody still waits for it."""
        self.turn.left -= 1
        if not self.turn.left and self.turn.timer is not None:
            self.turn.timer.cancel()
        if self.reply.done():
            return
        if isinstance(reply, BaseException):
            self.reply.set_exception(reply)
        else:
            self.reply.set_result(reply)


class Lanes:
    """The connections of one event loop to one place; `close` ends them and whoever waits for them."""

    def __init__(self, place: Place, loop: asyncio.AbstractEventLoop) -> None:
        self._place, self._loop = place, loop
        self._identity = Identity(place)
        self._waiting: deque[_Call] = deque()
        self._turns: dict[float, _Turn] = {}
        self._idle: list[Lane] = []
        self._pumps: set[asyncio.Task[None]] = set()
        self._connecting = self._working = 0
        self._closed = False

    def ask(self, command: Command, deadline_seconds: float, *, repeatable: bool) -> asyncio.Future[Any]:
        """
        Return the future reply to *command*: a result, or `ConnectionsError`, or TimeoutError after the deadline.

        A *repeatable* one is sent again where the connection was lost: servers restart, and hang up on the idle.
        ``(b"GET", key)`` is sent together with others as one ``MGET``, for which a value that is no string is none.
        """
        if self._closed:
            raise ConnectionsError("the connections are closed")
        if len(self._waiting) >= MAX_WAITING:
            raise ConnectionsError("too many commands wait for the server")
        turn = self._turns.get(deadline_seconds)
        if turn is None:
            if not self._turns:
                self._loop.call_soon(self._send)
            turn = self._turns[deadline_seconds] = _Turn(self._loop.time() + deadline_seconds, [])
        call = _Call(command, self._loop.create_future(), turn, repeatable)
        turn.calls.append(call)
        self._waiting.append(call)
        return call.reply

    async def close(self) -> None:
        """Hang up; those who wait get a `ConnectionsError`."""
        self._closed = True
        pumps = list(self._pumps)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        self._fail(ConnectionsError("the connections are closed"))
        while self._idle:
            await self._idle.pop().close()

    def _send(self) -> None:
        """Start the deadlines of this turn's commands, and a connection's work on them if one is to be had."""
        for turn in self._turns.values():
            turn.left = len(turn.calls)
            turn.timer = self._loop.call_at(turn.expires_at, turn.expire)
        self._turns.clear()
        if self._closed or (lane := self._free()) is None:
            return
        pump = self._loop.create_task(self._pump(lane), name="redis connection")
        self._pumps.add(pump)
        pump.add_done_callback(self._pumps.discard)

    def _free(self) -> Lane | None:
        """Return a connection to use now, if only to be made; None where those at work will take what waits."""
        for lane in self._idle:
            if lane.connected:
                self._idle.remove(lane)
                return lane
        # Four attempts at once to reach a server help nobody.
        if self._connecting or len(self._pumps) >= MAX_LANES:
            return None
        return self._idle.pop() if self._idle else Lane(self._place, self._identity)

    async def _pump(self, lane: Lane) -> None:
        """Send what waits over *lane* until nothing does."""
        self._working += 1
        try:
            if not lane.connected:
                await self._connect(lane)
            while batch := self._take():
                await self._exchange(lane, batch)
        except ConnectionsError as exc:
            # The others' connections may be good, where the server takes no more of them.
            if self._working == 1:
                self._fail(exc)
        finally:
            self._working -= 1
            if self._closed:
                await lane.close()
            else:
                self._idle.append(lane)

    async def _connect(self, lane: Lane) -> None:
        self._connecting += 1
        try:
            await lane.ready()
        finally:
            self._connecting -= 1

    async def _exchange(self, lane: Lane, batch: list[_Call], *, again: bool = False) -> None:
        gets = [call for call in batch if call.command[0] == b"GET"]
        others = [call for call in batch if call.command[0] != b"GET"] if len(gets) < len(batch) else []
        commands = [call.command for call in others]
        if gets:
            commands.append(("MGET", *(call.command[1] for call in gets)))
        try:
            async with asyncio.timeout_at(max(call.turn.expires_at for call in batch)):
                replies = await lane.exchange(commands)
        except TimeoutError:
            # Each call has its own timer, which tells it; this only gives up the connection.
            replies = [TimeoutError("the server did not answer in time")] * len(commands)
        except ConnectionsError as exc:
            repeated = [call for call in batch if call.repeatable and not again]
            lost = [call for call in batch if again or not call.repeatable]
            _settle(lost, [exc] * len(lost))
            if repeated:
                await self._exchange(lane, repeated, again=True)
            return
        except BaseException:
            _settle(batch, [ConnectionsError("the connections are closed")] * len(batch))
            raise
        found = replies.pop() if gets else None
        _settle(others, replies)
        _settle(gets, found if isinstance(found, list) else [found] * len(gets))

    def _take(self) -> list[_Call]:
        batch: list[_Call] = []
        while self._waiting and len(batch) < MAX_BATCH:
            call = self._waiting.popleft()
            if call.reply.done():
                # It waited too long already, or nobody wants it any more: better not done than done late.
                call.settle(None)
            else:
                batch.append(call)
        return batch

    def _fail(self, exc: ConnectionsError) -> None:
        while self._waiting:
            self._waiting.popleft().settle(exc)


def _settle(calls: list[_Call], replies: list[Any]) -> None:
    for call, reply in zip(calls, replies, strict=True):
        # One exception object raised at many places would collect the traces of all of them.
        call.settle(_copy(reply) if isinstance(reply, BaseException) else reply)


def _copy(exc: BaseException) -> BaseException:
    if isinstance(exc, RefusedError):
        return RefusedError(exc.code)
    return type(exc)(*exc.args)

"""What is told to the server about messages, so that none that was handled comes again where that can be helped."""

from __future__ import annotations

import json
from typing import Protocol

from nats.errors import Error as NatsError

from .client import NatsClient

_ACK, _TERM, _PROGRESS, _NAK = b"+ACK", b"+TERM", b"+WPI", b"-NAK"
_NANOSECONDS = 1_000_000_000


class Connected(Protocol):
    """Who has the connection, as long as there is one."""

    @property
    def current(self) -> NatsClient | None:
        """The client that is connected now."""


class Acks:
    """
    Acknowledges messages by their reply subjects, without waiting for an answer to each.

    What is settled is kept, by its position, until `confirm` says that the server has got it, and sent again over a new
    connection: one that is lost costs no repeats.  All else that is lost only delays, until the server's time for a
    message is over.
    """

    def __init__(self, connection: Connected) -> None:
        self._connection = connection
        self._unconfirmed: dict[str, tuple[str, bytes]] = {}

    def __contains__(self, position: object) -> bool:
        """Tell whether the message at *position* is settled, and the server may not know it yet."""
        return position in self._unconfirmed

    @property
    def unconfirmed(self) -> int:
        """How many are not sure to have been received."""
        return len(self._unconfirmed)

    async def settle(self, reply: str, position: str, *, dead: bool = False) -> None:
        """Never deliver the message at *position* again: it is handled, or a *dead* letter."""
        word = _TERM if dead else _ACK
        self._unconfirmed[position] = reply, word
        await self._send(reply, word)

    async def again(self, reply: str, after_seconds: float = 0.0) -> None:
        """Deliver the message again."""
        delay = json.dumps({"delay": int(after_seconds * _NANOSECONDS)}).encode("ascii")
        await self._send(reply, _NAK + b" " + delay if after_seconds > 0 else _NAK)

    async def progress(self, reply: str) -> None:
        """Wait for the message as long as at first."""
        await self._send(reply, _PROGRESS)

    def sent(self) -> list[str]:
        """Return what an answer to a question that is asked now would confirm."""
        return list(self._unconfirmed)

    def confirm(self, sent: list[str]) -> None:
        """Forget what the server has got: it takes what one connection sends in order."""
        for position in sent:
            self._unconfirmed.pop(position, None)

    async def repeat(self, client: NatsClient) -> None:
        """
        Send what may have been lost with the connection before over *client*.

        Raises:
            NatsError: This one is lost too.
        """
        sent: set[str] = set()
        # What is settled meanwhile finds no connection yet, and must not be missed either.
        while left := [one for one in self._unconfirmed.items() if one[0] not in sent]:
            for position, (reply, word) in left:
                await client.publish(reply, word)
                sent.add(position)

    async def _send(self, reply: str, word: bytes) -> None:
        if (client := self._connection.current) is None:
            return
        try:
            await client.publish(reply, word)
        except (NatsError, OSError):
            # The connection is lost in this moment: the next one gets what matters.
            return

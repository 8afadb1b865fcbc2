"""Requests to a pull consumer, for as many messages as can be handled, and what the server says of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from nats.errors import Error as NatsError

from .client import Message, NatsClient

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

_EXPIRES_SECONDS = 30.0
_HEARTBEAT_SECONDS = 5.0
_SILENT_SECONDS = 3 * _HEARTBEAT_SECONDS
_NANOSECONDS = 1_000_000_000
_ACK_PREFIX = "$JS.ACK."
_GONE = ("consumer deleted", "consumer is push based")
_REFUSED = "exceeded maxrequest"


class Pull:
    """
    What one connection asks a consumer for: *deliver* gets each message; *changed* is called when the server says more.

    *asked* is how many messages may still come.
    """

    def __init__(
        self,
        client: NatsClient,
        consumer: tuple[str, str],
        deliver: Callable[[Message], None],
        changed: Callable[[], None],
    ) -> None:
        self.asked = 0
        self.trouble = ""
        """What the server has last said beside the usual, until somebody looks into it."""
        self.is_gone = False
        """Whether it has said that there is no such consumer any more."""
        self.is_refused = False
        """Whether it has said that this consumer never gives what is asked for."""
        self._client, self._deliver, self._changed = client, deliver, changed
        self._subject = "$JS.API.CONSUMER.MSG.NEXT.{}.{}".format(*consumer)
        self._inbox = client.new_inbox()
        self._subscription: Subscription | None = None
        self._heard_at = time.monotonic()

    async def begin(self) -> None:
        """
        Be ready to take messages.

        Raises:
            NatsError: The connection is lost.
        """
        # Never dropped for being many: no more come than were asked for.
        self._subscription = await self._client.subscribe(self._inbox, cb=self._take, pending_bytes_limit=0)

    async def ask(self, count: int) -> None:
        """
        Ask for *count* messages more.

        Raises:
            NatsError: The connection is lost.
        """
        if not self.asked:
            self._heard_at = time.monotonic()
        self.asked += count
        request = {
            "batch": count,
            "expires": int(_EXPIRES_SECONDS * _NANOSECONDS),
            "idle_heartbeat": int(_HEARTBEAT_SECONDS * _NANOSECONDS),
        }
        await self._client.publish(self._subject, json.dumps(request).encode("ascii"), reply=self._inbox)

    @property
    def is_silent(self) -> bool:
        """Whether nothing has been heard for longer than the server would be silent."""
        return self.asked > 0 and time.monotonic() - self._heard_at > _SILENT_SECONDS

    async def end(self) -> None:
        """Take no more; what the server has already sent is still delivered."""
        if self._subscription is not None and self._client.is_connected:
            try:
                await self._subscription.drain()  # type: ignore[no-untyped-call]
            except (NatsError, OSError, TimeoutError):
                # With its connection it has ended anyway.
                return

    async def _take(self, message: Msg) -> None:
        self._heard_at = time.monotonic()
        # Whoever writes to the stream may copy the headers of a status, but not the server's own subject.
        if message.reply.startswith(_ACK_PREFIX) and isinstance(message, Message):
            self.asked = max(0, self.asked - 1)
            self._deliver(message)
            return
        self._told(message.headers or {})
        self._changed()

    def _told(self, headers: dict[str, str]) -> None:
        status = headers.get("Status", "")
        if status == "100":
            return
        left = headers.get("Nats-Pending-Messages", "")
        self.asked = max(0, self.asked - int(left)) if left.isdigit() and len(left) < 10 else 0
        if status != "408":
            self.trouble = f"{status} {headers.get('Description', '')}".strip()
            self.is_gone = any(text in self.trouble.lower() for text in _GONE)
            self.is_refused = status == "400" or _REFUSED in self.trouble.lower()

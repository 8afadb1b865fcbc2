"""A connection to NATS that is made anew whenever it is lost, with the credentials that are valid then."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable

from nats.errors import Error as NatsError
from nats.errors import SecureConnWantedError

from ...errors import SecretMissingError, SettingError
from ...resilience import backoff
from .client import NatsClient
from .login import login
from .place import NatsPlace

logger = logging.getLogger("faasbase.events")

_BASE_SECONDS, _CAP_SECONDS = 0.2, 5.0
_LOOK_SECONDS = 0.01
_UNAVAILABLE = (NatsError, OSError, TimeoutError, SecretMissingError, SettingError)
_REFUSALS = ("authorization violation", "authentication", "user jwt", "account")


class NatsConnection:
    """
    A connection to *place* that is there from `open` to `close`, but for the moments in which it is lost.

    Nothing that the library holds back survives a loss: who sends waits for `client` and asks again.  *on_change* is
    called when it is lost and when it is there again, *repeat* with each client before anyone else gets it.
    """

    def __init__(
        self,
        place: NatsPlace,
        name: str,
        on_change: Callable[[], None] | None = None,
        repeat: Callable[[NatsClient], Awaitable[None]] | None = None,
    ) -> None:
        self.place = place
        self.refused_at: float | None = None
        """Since when the servers have refused the credentials, on the clock of `time.monotonic`."""
        self.forbidden = ""
        """What the server has last said that may not be done."""
        self._name, self._on_change, self._repeat = name, on_change, repeat
        self._client: NatsClient | None = None
        self._connected, self._lost = asyncio.Event(), asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """
        Connect; while nobody answers this tries again, and whoever calls bounds that.

        Raises:
            SettingError: The servers refuse who asks, or cannot be trusted.
        """
        tries = 0
        while self._client is None:
            try:
                self._client = await self._connect()
            except (NatsError, OSError, TimeoutError) as exc:
                if reason := _refusal(exc):
                    raise SettingError(self.place.setting, f"NATS at {self.place.shown} {reason}") from None
                await asyncio.sleep(backoff(tries, _BASE_SECONDS, _CAP_SECONDS))
                tries += 1
        self._connected.set()
        self._keeper = asyncio.create_task(self._keep(), name="nats connection")

    async def client(self) -> NatsClient:
        """Return the client that is connected now, or wait for the next; whoever calls bounds that."""
        await self._connected.wait()
        while (client := self.current) is None:
            # Its end is told a moment after it has come.
            await asyncio.sleep(_LOOK_SECONDS)
            await self._connected.wait()
        return client

    @property
    def current(self) -> NatsClient | None:
        """The client that is connected now."""
        return self._client if self._client is not None and self._client.is_connected else None

    async def close(self) -> None:
        """Send what is on its way, within a moment, and disconnect."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        client, self._client = self._client, None
        self._connected.clear()
        if client is not None:
            await client.end()

    async def _keep(self) -> None:
        while True:
            await self._lost.wait()
            logger.warning("the connection to NATS at %s is lost", self.place.shown)
            began = time.monotonic()
            self._client = await self._reconnected()
            self._connected.set()
            if self._on_change is not None:
                self._on_change()
            logger.info("connected to NATS again, after %.1f s", time.monotonic() - began)

    async def _reconnected(self) -> NatsClient:
        tries, told = 0, ""
        while True:
            try:
                return await self._connect()
            except _UNAVAILABLE as exc:
                reason = _refusal(exc) or f"does not take connections ({type(exc).__name__})"
                if reason != told:
                    logger.error("NATS at %s %s", self.place.shown, reason)
                    told = reason
            await asyncio.sleep(_BASE_SECONDS / 2 + backoff(tries, _BASE_SECONDS, _CAP_SECONDS))
            tries += 1

    async def _connect(self) -> NatsClient:
        self._lost.clear()
        client = NatsClient(tls=self.place.tls)
        servers = [f"nats://{server}" for server in self.place.servers]
        callbacks = {"error_cb": self._told, "closed_cb": self._closed}
        try:
            await client.start(servers, self._name, **callbacks, **login(self.place))
        except _UNAVAILABLE as exc:
            self._note(exc)
            raise
        self.refused_at = None
        if self._repeat is not None:
            await self._repeated(client, self._repeat)
        return client

    async def _repeated(self, client: NatsClient, repeat: Callable[[NatsClient], Awaitable[None]]) -> None:
        try:
            await repeat(client)
        except BaseException:
            await client.end()
            raise

    def _note(self, exc: Exception) -> None:
        if not _refusal(exc):
            self.refused_at = None
        elif self.refused_at is None:
            self.refused_at = time.monotonic()

    async def _told(self, exc: Exception) -> None:
        if "permissions violation" in str(exc).lower():
            self.forbidden = str(exc).removeprefix("nats: ")
            logger.warning("NATS at %s refuses: %s", self.place.shown, self.forbidden)
        else:
            logger.debug("NATS at %s: %s", self.place.shown, exc)

    async def _closed(self) -> None:
        self._connected.clear()
        self._lost.set()
        if self._on_change is not None:
            self._on_change()


def _refusal(exc: Exception) -> str:
    """Return what the server means that cannot pass by itself; empty for what can."""
    if isinstance(exc, SecureConnWantedError):
        return "does not offer TLS"
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"has a certificate that cannot be trusted: {exc.verify_message}"
    if isinstance(exc, NatsError) and any(word in str(exc).lower() for word in _REFUSALS):
        return "refuses the credentials"
    return ""

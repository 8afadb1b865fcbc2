"""Post a message until it is taken: tried again while that helps, signed where the settings say so."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import Sequence
from hashlib import sha256

from ...credentials import Credentials
from ...errors import SecretMissingError, SettingError
from ...resilience import backoff
from ...secrets import hide
from ...settings import Settings
from ...signing import ID, SIGNATURE, TIMESTAMP, headers_of
from ..outgoing import PublishError, TooLargeError
from .connections import HttpConnections, LostError, Reply
from .place import HttpPlace

_AGAIN = (408, 429, 503)
"""408 is what some proxies say of a connection that was idle, and not of the request."""
_RETRY_BASE_SECONDS, _RETRY_CAP_SECONDS = 0.2, 2.0
_SHORTEST_PAUSE_SECONDS = 0.05
_MAX_SIGNATURES = 16
_MAX_AHEAD_SECONDS = 60
_MESSAGE_ID = re.compile(r"[!-~]{1,256}")
_OURS = frozenset(
    (
        *("host", "connection", "keep-alive", "content-length", "transfer-encoding", "te", "trailer", "upgrade"),
        *("expect", "authorization", "x-call-id", ID, TIMESTAMP, SIGNATURE),
    )
)
"""Headers that no message brings: they are the request's, or the next call's."""

Headers = Sequence[tuple[str, str]]


class Posting:
    """
    Posts messages to *place* until they are taken, within ``PUBLISH_TIMEOUT``, signed where ``PUBLISH_SECRET`` is set.

    Tried again are lost connections, 408, 429 and 503, after the ``Retry-After`` that they name.
    """

    def __init__(self, place: HttpPlace, settings: Settings) -> None:
        self._place, self._timeout_seconds = place, settings.events.publish_timeout
        names = settings.events.publish_secrets
        self._credentials = Credentials(names, settings.secrets_dir, "PUBLISH_SECRET") if names else None
        self._shown: str | None = None
        self._connections: HttpConnections | None = None

    async def open(self) -> None:
        """
        Read the secrets once.

        Raises:
            SettingError: The certificates cannot be used.
            SecretMissingError: A secret is not there.
        """
        if self._credentials is not None:
            self._credentials.check()
        context = await asyncio.to_thread(self._tls) if self._place.scheme == "https" else None
        self._connections = HttpConnections(self._place, context)

    async def post(self, path: str, message_id: str, headers: Headers, body: bytes) -> None:
        """
        Post *body* and return once it is taken.

        Raises:
            TooLargeError: It has more than the receiver takes.
            PublishError: It is not, or not within the time.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self._timeout_seconds
        kept = [(name, value) for name, value in headers if name.lower() not in _OURS]
        tries = 0
        while True:
            ours = [*self._authorization(), *await self._signature(message_id, body, tries)]
            reply, reason = await self._tried(path, [*kept, *ours], body)
            if reply is not None and 200 <= reply.status < 300:
                return
            if reply is not None and reply.status not in _AGAIN:
                kind = TooLargeError if reply.status == 413 else PublishError
                raise kind(f"{self._place.name} {reason}")
            pause = _pause(reply, tries)
            if loop.time() + pause >= until:
                raise PublishError(f"{self._place.name} {reason}, and the time is over ({tries + 1} tries)")
            await asyncio.sleep(pause)
            tries += 1

    async def close(self) -> None:
        """Hang up."""
        if self._connections is not None:
            await self._connections.close()

    async def _tried(self, path: str, headers: Headers, body: bytes) -> tuple[Reply | None, str]:
        """Post once and return the answer, None where it was lost, and what is wrong with it."""
        assert self._connections is not None  # noqa: S101 - opened before it is used
        try:
            reply = await self._connections.post(path, headers, body)
        except LostError as exc:
            return None, f"gives no answer: {exc}"
        except ssl.SSLCertVerificationError as exc:
            reason = f"shows a certificate that is not trusted: {exc.verify_message}"
            raise PublishError(f"{self._place.name} {reason}") from exc
        except ValueError as exc:
            raise PublishError(f"the event cannot be sent: {exc}") from exc
        return reply, f"answers {reply.status}"

    def _authorization(self) -> Headers:
        try:
            shown = self._place.credentials()
        except SecretMissingError as exc:
            raise PublishError(f"the event cannot be sent: {exc}") from exc
        if shown is None:
            return []
        if shown != self._shown:
            hide(shown)
            self._shown = shown
        return [("Authorization", f"Basic {shown}")]

    async def _signature(self, message_id: str, body: bytes, tries: int) -> Headers:
        if self._credentials is None:
            return []
        try:
            valid, _ = await self._credentials.valid()
        except SecretMissingError as exc:
            raise PublishError(f"the event cannot be signed: {exc}") from exc
        if not _MESSAGE_ID.fullmatch(message_id):
            message_id = sha256(message_id.encode("utf-8", "replace")).hexdigest()
        # A receiver refuses the same message of the same second as somebody else's copy: each try has its own.
        sent_at = time.time() + min(tries, _MAX_AHEAD_SECONDS)
        return list(headers_of(body, valid[:_MAX_SIGNATURES], message_id=message_id, sent_at=sent_at).items())

    def _tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self._place.ca is not None:
            try:
                context.load_verify_locations(cadata=self._place.ca.reveal().get_secret_value())
            except (ValueError, ssl.SSLError):
                reason = "the secret of ca_secret holds no certificates (PEM)"
                raise SettingError(self._place.setting, reason) from None
        return context


def _pause(reply: Reply | None, tries: int) -> float:
    drawn = backoff(tries, _RETRY_BASE_SECONDS, _RETRY_CAP_SECONDS)
    if reply is None or reply.retry_after_seconds is None:
        return max(drawn, _SHORTEST_PAUSE_SECONDS)
    return max(reply.retry_after_seconds, _SHORTEST_PAUSE_SECONDS)

"""
Sign messages and check signatures as Standard Webhooks says (https://www.standardwebhooks.com): HMAC-SHA256.

Signed are the message's id, the time and the body, so that neither can be changed, and a message can be told from its
repetition.  Senders in every language have a library for it; during a rotation a message carries several signatures.
"""

from __future__ import annotations

import base64
import hmac
import re
import time
import uuid
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple

from .credentials import Credential, Credentials

ID, TIMESTAMP, SIGNATURE = "webhook-id", "webhook-timestamp", "webhook-signature"
TOLERANCE_SECONDS = 300.0
"""How far a message's time may be from ours, both ways."""

_VERSION = b"v1,"
_ID = re.compile(rb"[!-~]{1,256}")
_TIMESTAMP = re.compile(rb"[1-9]\d{0,11}")
_MAX_SIGNATURE_BYTES = 4096
_MAX_SIGNATURES = 16


class SignatureError(Exception):
    """The message is not to be believed; the text says why and may be shown, *reason* is one word for metrics."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Signed(NamedTuple):
    """What a message's headers say of its signatures, well formed and not yet believed."""

    message_id: str
    sent_at: int
    signatures: tuple[bytes, ...]

    def signer(self, body: bytes, valid: Iterable[Credential]) -> Credential | None:
        """Return the credential that has signed this and *body*; it takes the same time whichever of them it is."""
        found = None
        for credential in valid:
            expected = _signature(credential.key, self.message_id, self.sent_at, body)
            matches = [hmac.compare_digest(expected, given) for given in self.signatures]
            found = credential if any(matches) and found is None else found
        return found

    def digest(self, body: bytes) -> bytes:
        """Return what tells this message with *body* from others, whoever signed it, 32 bytes."""
        hashed = sha256(_signed_part(self.message_id, self.sent_at))
        hashed.update(body)
        return hashed.digest()


async def signed_headers(
    body: bytes, secret: str, *, message_id: str | None = None, sent_at: float | None = None
) -> dict[str, str]:
    """
    Return the headers that sign *body* with what the secret called *secret* holds, all lines of it.

    *message_id* stays the same when a message is sent again; by default it is new.  *sent_at* is in seconds since
    1970, by default now.

    Raises:
        SecretMissingError: There is no such secret.
    """
    valid, _ = await Credentials([secret]).valid()
    return headers_of(body, valid, message_id=message_id, sent_at=sent_at)


def headers_of(
    body: bytes, valid: Sequence[Credential], *, message_id: str | None = None, sent_at: float | None = None
) -> dict[str, str]:
    """Return the headers that sign *body* with each of *valid*."""
    name = message_id or f"msg_{uuid.uuid4().hex}"
    seconds = int(time.time() if sent_at is None else sent_at)
    signatures = [_VERSION + _signature(credential.key, name, seconds, body) for credential in valid]
    return {ID: name, TIMESTAMP: str(seconds), SIGNATURE: b" ".join(signatures).decode("ascii")}


def read_signed(headers: Iterable[tuple[bytes, bytes]], now: float, tolerance_seconds: float) -> Signed:
    """
    Read the three headers, names in lower case, each of which must be there once; *now* is in seconds since 1970.

    Raises:
        SignatureError: One is missing, double or malformed, or the time is not near enough.
    """
    found = {name: _only(headers, name) for name in (ID, TIMESTAMP, SIGNATURE)}
    if not _ID.fullmatch(found[ID]) or not _TIMESTAMP.fullmatch(found[TIMESTAMP]):
        raise SignatureError("malformed", f"the headers {ID} and {TIMESTAMP} are not well formed")
    sent_at = int(found[TIMESTAMP])
    if abs(now - sent_at) > tolerance_seconds:
        raise SignatureError("expired", f"the time in {TIMESTAMP} is more than {tolerance_seconds:g} s from now")
    return Signed(found[ID].decode("ascii"), sent_at, _signatures(found[SIGNATURE]))


def _only(headers: Iterable[tuple[bytes, bytes]], name: str) -> bytes:
    values = [value for header, value in headers if header == name.encode("ascii")]
    if not values:
        raise SignatureError("missing", f"the header {name} is missing")
    if len(values) > 1:
        raise SignatureError("malformed", f"the header {name} is there more than once")
    return values[0]


def _signatures(header: bytes) -> tuple[bytes, ...]:
    # Other versions than v1 are other methods, and the sender may offer them as well.
    given = [part[len(_VERSION) :] for part in header.split(b" ", _MAX_SIGNATURES) if part.startswith(_VERSION)]
    if not given or len(given) > _MAX_SIGNATURES or len(header) > _MAX_SIGNATURE_BYTES:
        raise SignatureError("malformed", f"the header {SIGNATURE} has no signature of version 1, or too many")
    return tuple(given)


def _signature(key: bytes, message_id: str, sent_at: int, body: bytes) -> bytes:
    signed = hmac.new(key, _signed_part(message_id, sent_at), sha256)
    signed.update(body)
    return base64.b64encode(signed.digest())


def _signed_part(message_id: str, sent_at: int) -> bytes:
    # What stands in front of the body.
    return f"{message_id}.{sent_at}.".encode("ascii")

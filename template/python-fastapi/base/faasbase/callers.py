"""Who calls: checks of bearer tokens and of signatures, for whatever stands behind them."""

from __future__ import annotations

import hmac
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Protocol

from . import metrics
from .context import current_call, enter_call
from .credentials import Credential, Credentials
from .errors import Problem
from .replays import Replays, current_replays, expect
from .signing import SIGNATURE, TOLERANCE_SECONDS, SignatureError, Signed, read_signed
from .tracing import EXCHANGE

CALLER = "faasbase.caller"
"""Key of the scope under which the checked caller is found."""

REFUSED = metrics.counter("faas_auth_refused", "Calls refused for their credentials.", ("scheme", "reason"))

_TAKEN = "faasbase.taken"
_SIGNATURE_HEADER = SIGNATURE.encode("ascii")
_MAX_TOKEN_BYTES = 4096
# Larger bodies are hashed in a thread: the loop would wait for a millisecond or more.
_HASHED_AT_ONCE_BYTES = 256 * 1024

ReadBody = Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller whose credentials were checked."""

    secret: str
    """Name of the secret that holds its token or key; in a rotation between two names, the one that it has used."""
    scheme: str
    """``bearer`` or ``signature``."""
    message_id: str | None = None
    """Of a signed message its ``webhook-id``, which is the same when the message is sent again."""

    def require(self, *secrets: str) -> None:
        """
        Let only callers pass that have shown one of *secrets*.

        Raises:
            Problem: 403, the caller is another one.
        """
        if self.secret not in secrets:
            raise Problem(403, "this caller may not do that")


class Check(Protocol):
    """
    Finds out who calls, or refuses; *read_body* is asked only by whom the body matters to.

    Raises:
        Problem: 401, or 503 while the secret cannot be read.
    """

    async def __call__(self, scope: Any, read_body: ReadBody) -> Caller: ...

    def ready(self) -> None:
        """
        Make sure, at start, that there is something to check with.

        Raises:
            SecretMissingError: There is not.
        """


class BearerCheck:
    """Asks for one of *credentials* as a bearer token (RFC 6750)."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def ready(self) -> None:
        self._credentials.check()

    async def __call__(self, scope: Any, read_body: ReadBody) -> Caller:
        shown = [value for name, value in scope["headers"] if name == b"authorization"]
        if not shown:
            raise _no_bearer("missing", "Bearer")
        scheme, _, token = shown[0].partition(b" ")
        token = token.strip(b" ")
        if len(shown) > 1 or scheme.lower() != b"bearer" or not 0 < len(token) <= _MAX_TOKEN_BYTES:
            raise _no_bearer("malformed", 'Bearer error="invalid_request"')
        valid, missing = await self._credentials.valid()
        # Digests have one length, and all are compared, so that the time tells nothing of a token.
        digest = sha256(token).digest()
        found = [credential for credential in valid if hmac.compare_digest(credential.digest, digest)]
        if found:
            return Caller(found[0].secret, "bearer")
        raise missing or _no_bearer("unknown", 'Bearer error="invalid_token"')


class SignatureCheck:
    """
    Asks for a message that one of *credentials* has signed within *tolerance_seconds* from now (see `signing`).

    Each message is taken once by a process, though several checks may see it in one call; one whose call has failed
    (5xx, 429, no answer) may come again, as the queues of OpenFaaS send it.  Replicas do not tell each other: an effect
    that must not happen twice anywhere is `@idempotent`, with `Caller.message_id` as its key.  Where more messages come
    than are remembered, old ones that may be repetitions are taken if *in_doubt* says so.  Neither path nor query is
    signed.
    """

    def __init__(
        self,
        credentials: Credentials,
        tolerance_seconds: float = TOLERANCE_SECONDS,
        clock: Callable[[], float] = time.time,
        *,
        in_doubt: bool = False,
    ) -> None:
        self._credentials = credentials
        self._tolerance_seconds, self._in_doubt = tolerance_seconds, in_doubt
        self._clock = clock
        self._own_replays = Replays(clock=clock)
        expect(tolerance_seconds)

    def ready(self) -> None:
        self._credentials.check()

    async def __call__(self, scope: Any, read_body: ReadBody) -> Caller:
        try:
            return await self._caller(scope, read_body)
        except SignatureError as exc:
            REFUSED.inc(scheme="signature", reason=exc.reason)
            raise Problem(401, str(exc), headers={"WWW-Authenticate": "Standard-Webhooks"}) from None

    async def _caller(self, scope: Any, read_body: ReadBody) -> Caller:
        signed = self._read(scope)
        body = await read_body()
        # The body may have taken its time.
        self._read(scope)
        valid, missing = await self._credentials.valid()
        is_large = len(body) > _HASHED_AT_ONCE_BYTES
        signer, digest = await _in_thread(signed, body, valid) if is_large else _hashed(signed, body, valid)
        if signer is None:
            raise missing or SignatureError("unknown", "the signature is not valid")
        self._take(digest, signed.sent_at, signer.secret, scope)
        return Caller(signer.secret, "signature", signed.message_id)

    def _read(self, scope: Any) -> Signed:
        return read_signed(scope["headers"], self._clock(), self._tolerance_seconds)

    def _take(self, digest: bytes, sent_at: int, signer: str, scope: Any) -> None:
        taken: set[bytes] = scope.setdefault(_TAKEN, set())
        if digest in taken:
            # By another check of this very call.
            return
        replays = current_replays(self._own_replays)
        # A message that is sent again is signed with another time; the same once more is somebody else's.
        if not replays.take(digest, sent_at, self._tolerance_seconds, signer=signer, in_doubt=self._in_doubt):
            raise SignatureError("replayed", "this message was taken before")
        taken.add(digest)
        exchange = scope.get(EXCHANGE)
        if exchange is not None:
            exchange.on_failure.append(lambda: replays.give_back(digest))


class EitherCheck:
    """Asks for a signature where the call has one, else for a bearer token."""

    def __init__(self, bearer: Check, signature: Check) -> None:
        self._bearer = bearer
        self._signature = signature

    def ready(self) -> None:
        self._bearer.ready()
        self._signature.ready()

    async def __call__(self, scope: Any, read_body: ReadBody) -> Caller:
        is_signed = any(name == _SIGNATURE_HEADER for name, _ in scope["headers"])
        return await (self._signature if is_signed else self._bearer)(scope, read_body)


def enter_caller(scope: Any, caller: Caller) -> None:
    """Make *caller* known to what handles the call of *scope*: in the scope, and in the call's context."""
    scope[CALLER] = caller
    call = current_call()
    if call is not None:
        enter_call(replace(call, callers=(*call.callers, caller)))


def _no_bearer(reason: str, challenge: str) -> Problem:
    REFUSED.inc(scheme="bearer", reason=reason)
    return Problem(401, "a valid bearer token is needed", headers={"WWW-Authenticate": challenge})


def _hashed(signed: Signed, body: bytes, valid: Sequence[Credential]) -> tuple[Credential | None, bytes]:
    signer = signed.signer(body, valid)
    # A body that nobody has signed need not be hashed once more.
    return signer, b"" if signer is None else signed.digest(body)


async def _in_thread(signed: Signed, body: bytes, valid: Sequence[Credential]) -> tuple[Credential | None, bytes]:
    from starlette.concurrency import run_in_threadpool

    return await run_in_threadpool(_hashed, signed, body, valid)

"""The credentials of S3 from secret files: replaced while the function runs, without a call that fails."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, NamedTuple

from ..secrets import Secret

if TYPE_CHECKING:
    from pydantic import SecretStr

_REFUSED_SECONDS = 10.0
"""How long a refused pair is not tried again where an older one still works; servers learn of new keys late."""
_MAX_REFUSED = 8

_chosen: ContextVar[Pair | None] = ContextVar("s3_pair", default=None)


class Pair(NamedTuple):
    """The two keys that sign requests."""

    access_key: SecretStr
    secret_key: SecretStr


class S3Credentials:
    """
    Chooses the pair that signs a request.

    That is what the files hold now.  Two files cannot be replaced at one moment, and a server may learn of a new pair
    after its files have: so a pair that was refused gives way for a while to the one that worked last.
    """

    def __init__(self, access_key: Secret, secret_key: Secret, clock: Callable[[], float] = time.monotonic) -> None:
        self._access_key, self._secret_key, self._clock = access_key, secret_key, clock
        self._worked: Pair | None = None
        self._refused: dict[Pair, float] = {}

    def current(self) -> Pair:
        """
        Return the pair to sign with.

        Raises:
            SecretMissingError: A file has gone.
        """
        pair = Pair(self._access_key.reveal(), self._secret_key.reveal())
        if self._is_refused(pair) and self._worked is not None and not self._is_refused(self._worked):
            return self._worked
        return pair

    def accepted(self, pair: Pair) -> None:
        """Take note that the server took *pair*."""
        self._worked = pair
        self._refused.pop(pair, None)

    def refused(self, pair: Pair) -> bool:
        """Take note that the server refused *pair*; return whether there is another one to try."""
        if len(self._refused) >= _MAX_REFUSED:
            self._refused.clear()
        self._refused[pair] = self._clock()
        self._access_key.refresh(pair.access_key)
        self._secret_key.refresh(pair.secret_key)
        return self.current() != pair

    def _is_refused(self, pair: Pair) -> bool:
        at = self._refused.get(pair)
        return at is not None and self._clock() - at < _REFUSED_SECONDS


class Signing:
    """Which pair signs what a task sends; the library signs deep down, where nobody could be told of a refusal."""

    def __init__(self, credentials: S3Credentials) -> None:
        self._credentials = credentials

    def choose(self) -> Pair:
        """Return the pair that signs what the calling task sends from now on."""
        pair = self._credentials.current()
        _chosen.set(pair)
        return pair

    def chosen(self) -> Pair:
        """Return the pair that was chosen."""
        return _chosen.get() or self._credentials.current()

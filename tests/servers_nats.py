"""
The NATS of all tests that do not stop it or change its settings, and what is needed to sign in with keys.

Keys and tokens are made as NATS ADR-14 says; the server is the judge of them.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from nacl.signing import SigningKey

from deploy.brokers.nats import NatsServer

OPERATOR, ACCOUNT, USER, SEED = 14 << 3, 0, 20 << 3, 18 << 3
NO_LIMIT = -1
ACCOUNT_LIMITS = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
JETSTREAM_LIMITS = ("mem_storage", "disk_storage", "streams", "consumer")
USER_LIMITS = ("subs", "data", "payload")


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Give the NATS of this test process, without passwords."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@dataclass(frozen=True)
class Nkey:
    """A pair of keys of *kind*: an operator's, an account's or a user's."""

    kind: int = USER
    key: SigningKey = field(default_factory=SigningKey.generate)

    @property
    def public(self) -> str:
        return _encoded(bytes([self.kind]) + bytes(self.key.verify_key))

    @property
    def seed(self) -> str:
        return _encoded(bytes([SEED | self.kind >> 5, (self.kind & 31) << 3]) + bytes(self.key))

    def token(self, subject: Nkey, **claims: object) -> str:
        """Return the JSON Web Token by which this one vouches for *subject*."""
        content = {"jti": subject.public, "iat": int(time.time()), "iss": self.public, "sub": subject.public}
        parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, {**content, "nats": {"version": 2, **claims}}]
        signed = ".".join(_base64(json.dumps(part).encode()) for part in parts)
        return f"{signed}.{_base64(self.key.sign(signed.encode()).signature)}"


class Operator:
    """An operator with one account: *settings* of a server that knows both, and ``.creds`` files for users."""

    def __init__(self) -> None:
        self._account, system, operator = Nkey(ACCOUNT), Nkey(ACCOUNT), Nkey(OPERATOR)
        limits = dict.fromkeys(ACCOUNT_LIMITS, NO_LIMIT) | {"wildcards": True}
        # The server's own account may have no streams.
        system_token = operator.token(system, type="account", limits=limits)
        limits |= dict.fromkeys(JETSTREAM_LIMITS, NO_LIMIT)
        token = operator.token(self._account, type="account", limits=limits)
        self.settings = (
            f"operator: {operator.token(operator, type='operator')}\n"
            f"system_account: {system.public}\n"
            f"resolver: MEMORY\n"
            f"resolver_preload: {{ {self._account.public}: {token}, {system.public}: {system_token} }}\n"
        )

    def creds(self) -> str:
        """Return the text of a new user's ``.creds`` file."""
        user = Nkey()
        token = self._account.token(user, type="user", **dict.fromkeys(USER_LIMITS, NO_LIMIT))
        return (
            f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )


def _encoded(content: bytes) -> str:
    checked = content + binascii.crc_hqx(content, 0).to_bytes(2, "little")
    return base64.b32encode(checked).decode().rstrip("=")


def _base64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")

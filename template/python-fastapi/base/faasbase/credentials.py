"""The credentials that are valid now: the lines of a secret, or of several, so that each can be replaced."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from .errors import SecretMissingError
from .secrets import Secret, hide

if TYPE_CHECKING:
    from pydantic import SecretStr

KEY_PREFIX = "whsec_"
"""What a key of Standard Webhooks begins with; base64 follows."""

_SHORTEST = 8
_MOST = 16
# Whoever writes a file in place leaves it empty for a moment.
_REPLACING_SECONDS = 0.02


class Credential(NamedTuple):
    """One value that is valid now: as a token its digest is compared, as a key its bytes sign."""

    secret: str
    digest: bytes
    key: bytes

    def __repr__(self) -> str:
        return f"Credential({self.secret!r})"


class Credentials:
    """
    The values in the secrets *names*, each line of at least eight characters one; blank lines mean nothing.

    *setting* is what names them, for messages.  A secret that has gone is worth nothing from that moment on: what was
    taken away is meant to be refused.

    Raises:
        ValueError: There is no name, or one is no name of a secret.
    """

    def __init__(self, names: Sequence[str], directory: Path | None = None, setting: str | None = None) -> None:
        if not names:
            raise ValueError("the name of a secret is needed")
        self._secrets = [_Lines(Secret(name, directory, setting=setting, grace_seconds=0.0)) for name in names]
        self._setting = setting

    @property
    def names(self) -> tuple[str, ...]:
        """The secrets' names."""
        return tuple(lines.secret.name for lines in self._secrets)

    def check(self) -> None:
        """
        Make sure that every secret is there and can be used.

        Raises:
            SecretMissingError: One is not.
        """
        for lines in self._secrets:
            lines.secret.check()
            lines.credentials()

    async def valid(self) -> tuple[list[Credential], SecretMissingError | None]:
        """
        Return what is valid now, and why some of it may be missing.

        Raises:
            SecretMissingError: All of it is, and was so a moment later.
        """
        found, missing = self._valid()
        if missing is not None and not found:
            await asyncio.sleep(_REPLACING_SECONDS)
            found, missing = self._valid()
            if missing is not None and not found:
                raise missing
        return found, missing

    def _valid(self) -> tuple[list[Credential], SecretMissingError | None]:
        found: list[Credential] = []
        missing = None
        for lines in self._secrets:
            try:
                found += lines.credentials()
            except SecretMissingError as exc:
                missing = exc
        return found, missing


class _Lines:
    """The credentials in one secret, taken apart once for each content."""

    def __init__(self, secret: Secret) -> None:
        self.secret = secret
        self._of: SecretStr | None = None
        self._credentials: list[Credential] = []

    def credentials(self) -> list[Credential]:
        content = self.secret.reveal()
        if content is not self._of:
            try:
                self._credentials = _read(self.secret.name, content.get_secret_value())
            except ValueError as exc:
                raise SecretMissingError(self.secret.name, str(exc), self.secret.setting) from None
            self._of = content
        return self._credentials


def read_credential(secret: str, line: str) -> Credential:
    """
    Return the credential that is written in *line* of *secret*: ``whsec_`` and base64, or any other text.

    Raises:
        ValueError: What follows ``whsec_`` is no key.
    """
    token = line.encode("utf-8")
    key = _key(line.removeprefix(KEY_PREFIX)) if line.startswith(KEY_PREFIX) else token
    return Credential(secret, sha256(token).digest(), key)


def _read(secret: str, content: str) -> list[Credential]:
    lines = [line.strip() for line in content.split("\n") if line.strip()]
    # A key in PEM has lines that anybody knows; text that was meant for something else has many, and short ones.
    if len(lines) > _MOST or any(len(line) < _SHORTEST or line.startswith("-----") for line in lines):
        raise ValueError(f"each of its lines, {_MOST} at most, must be a credential of {_SHORTEST} characters or more")
    for line in lines:
        hide(line)
        hide(line.removeprefix(KEY_PREFIX))
    return [read_credential(secret, line) for line in lines]


def _key(text: str) -> bytes:
    try:
        key = base64.b64decode(text, validate=True)
    except ValueError:
        key = b""
    if len(key) < _SHORTEST:
        raise ValueError(f"what follows {KEY_PREFIX} must be base64 of {_SHORTEST} bytes or more")
    return key

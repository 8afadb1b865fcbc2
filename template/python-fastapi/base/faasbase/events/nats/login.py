"""How clients sign in to NATS now: users, tokens, ``.creds`` files (NATS ADR-14), and the certificates they trust."""

from __future__ import annotations

import base64
import binascii
import re
import ssl
from collections.abc import Callable
from typing import Any

from ...errors import SettingError, missing_extra
from ...secrets import Secret, hide
from .place import NatsPlace

_JWT = re.compile(r"-BEGIN NATS USER JWT-+\s*([\w.-]+)\s*-", re.ASCII)
_SEED = re.compile(r"-BEGIN USER NKEY SEED-+\s*([A-Z2-7]+)\s*-", re.ASCII)
_USER_SEED = bytes(((18 << 3) | (20 << 3) >> 5, (20 << 3 & 31) << 3))
"""What a user's seed begins with: both prefixes of it, five bits a letter."""
_SEED_BYTES = 36


def login(place: NatsPlace) -> dict[str, Any]:
    """
    Return what a client of *place* is given to connect: the secrets as they are now.

    Raises:
        SecretMissingError: A secret is not there.
        SettingError: What it holds is of no use.
    """
    given: dict[str, Any] = {"tls": _tls(place)} if place.tls else {}
    if place.password is not None:
        given |= {"user": place.username, "password": _text(place.password)}
    elif place.token is not None:
        given["token"] = _text(place.token)
    elif place.credentials is not None:
        given |= _credentials(place.setting, _text(place.credentials))
    return given


def _text(secret: Secret) -> str:
    return secret.reveal().get_secret_value().strip()


def _tls(place: NatsPlace) -> ssl.SSLContext:
    if place.ca is None:
        return ssl.create_default_context()
    try:
        return ssl.create_default_context(cadata=_text(place.ca))
    except (ssl.SSLError, ValueError):
        raise SettingError(place.setting, "the secret of ca_secret holds no certificates (PEM)") from None


def _credentials(setting: str, text: str) -> dict[str, Any]:
    token, seed = _JWT.search(text), _SEED.search(text)
    if token is None or seed is None:
        raise SettingError(setting, "the secret of credentials_secret holds no .creds file")
    for value in (token[1], seed[1]):
        hide(value)
    sign = _signer(setting, seed[1])
    return {"user_jwt_cb": token[1].encode, "signature_cb": sign}


def _signer(setting: str, seed: str) -> Callable[[str], bytes]:
    try:
        from nacl.signing import SigningKey
    except ModuleNotFoundError as exc:
        raise missing_extra(exc, "nacl", "nats") from exc
    try:
        content = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except binascii.Error:
        content = b""
    checksum = binascii.crc_hqx(content[:-2], 0).to_bytes(2, "little")
    if len(content) != _SEED_BYTES or content[:2] != _USER_SEED or content[-2:] != checksum:
        raise SettingError(setting, "the secret of credentials_secret holds a seed that is no user's")
    key = SigningKey(content[2:-2])
    return lambda nonce: base64.b64encode(key.sign(nonce.encode("utf-8")).signature)

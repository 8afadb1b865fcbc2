"""Who may push events: everybody, where the settings say so, or whoever shows the secret."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from pathlib import Path

from starlette.requests import Request

from ..errors import Problem, SettingError
from ..settings import Settings

logger = logging.getLogger(__name__)

Check = Callable[[Request], None]

RETRY_AFTER_SECONDS = 5.0
"""When an event is to be sent again, where nobody knows better."""

_MAX_SECRET_BYTES = 4096


def guard(settings: Settings) -> Check:
    """
    Return the check that every pushed event passes first.

    Raises:
        SettingError: Events would be open to anyone: the gateway does not authenticate ``/function/*``.
    """
    if settings.events_http_secret is not None:
        path = settings.secrets_dir / settings.events_http_secret
        return _BearerCheck(path)
    if settings.events_http_public:
        return lambda request: None
    raise SettingError(
        "EVENTS_HTTP_SECRET",
        "must name the secret that pushers of events show as bearer token, "
        "or EVENTS_HTTP_PUBLIC=true let anyone push them: the gateway authenticates no function",
    )


class _BearerCheck:
    """
    Asks every pusher for the secret that is in the file *path*.

    Raises:
        SettingError: It cannot be read at start.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._readable = bool(_read_secret(path))

    def __call__(self, request: Request) -> None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        shown = hmac.compare_digest(token.strip().encode("utf-8"), self._secret())
        if scheme.lower() != "bearer" or not shown:
            headers = {"WWW-Authenticate": "Bearer"}
            raise Problem(401, "a valid bearer token is needed to push events", headers=headers)

    def _secret(self) -> bytes:
        # The file is read each time: kubelet replaces it when the secret is rotated.
        try:
            secret = _read_secret(self._path)
        except SettingError as exc:
            # One line an outage: anybody could write thousands by pushing.
            if self._readable:
                logger.error("no pushed event can be checked: %s", exc)
            self._readable = False
            raise Problem(503, "pushed events cannot be checked now", retry_after_seconds=RETRY_AFTER_SECONDS) from None
        self._readable = True
        return secret


def _read_secret(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            secret = file.read(_MAX_SECRET_BYTES).strip()
    except OSError as exc:
        raise SettingError("EVENTS_HTTP_SECRET", f"the secret cannot be read: {exc.strerror}") from None
    if not secret:
        raise SettingError("EVENTS_HTTP_SECRET", "the secret is empty")
    return secret

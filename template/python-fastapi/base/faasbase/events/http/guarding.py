"""
Who may push events: everybody, where the settings say so, or whoever shows the secret or signs with it.

OpenFaaS' connectors are asked as well, and can do neither.  A site either lets a proxy in front of the gateway, which a
connector's ``gateway_url`` leads to, add ``Authorization: Bearer`` to its calls (in a mesh, the connector's own), or it
sets ``EVENTS_HTTP_PUBLIC=true`` and lets a NetworkPolicy admit to the function's pods none but those who may push.
"""

from __future__ import annotations

from starlette.requests import Request

from ...callers import BearerCheck, EitherCheck, SignatureCheck, enter_caller
from ...credentials import Credentials
from ...errors import SecretMissingError, SettingError
from ...guarding import body_reader
from ...settings import Settings

_SETTING = "EVENTS_HTTP_SECRET"


class Pushers:
    """
    Those who may push events to a function with these *settings*.

    Raises:
        SettingError: It would be anyone, since the gateway does not authenticate ``/function/*``; or a secret that is
            asked of them is not there.
    """

    def __init__(self, settings: Settings) -> None:
        self._check: EitherCheck | None = None
        if settings.events.http_secrets:
            credentials = Credentials(settings.events.http_secrets, settings.secrets_dir, _SETTING)
            self._check = EitherCheck(
                BearerCheck(credentials), SignatureCheck(credentials, settings.events.http_tolerance, in_doubt=True)
            )
            self._make_ready(self._check)
        elif not settings.events.http_public:
            raise SettingError(
                _SETTING,
                "must name the secret that pushers of events show as bearer token or sign with, "
                "or EVENTS_HTTP_PUBLIC=true let anyone push them: the gateway authenticates no function",
            )

    async def admit(self, request: Request) -> None:
        """
        Let *request* pass, or refuse it.

        Raises:
            Problem: 401, or 503 while the secret cannot be read.
        """
        if self._check is not None:
            enter_caller(request.scope, await self._check(request.scope, body_reader(request)))

    def _make_ready(self, check: EitherCheck) -> None:
        try:
            check.ready()
        except SecretMissingError as exc:
            raise SettingError(_SETTING, f"secret {exc.name} cannot be read: {exc.reason}") from None

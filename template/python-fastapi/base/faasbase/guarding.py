"""Guard the whole function: what its settings ask of every caller, before anything else sees the call."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request

from .answering import answering
from .callers import BearerCheck, Check, EitherCheck, ReadBody, SignatureCheck, enter_caller
from .credentials import Credentials
from .errors import Problem
from .settings import Settings
from .tracing import PROBE_SCHEME


def guarded(app: Any, settings: Settings, open_paths: Collection[str] = ()) -> Any:
    """
    Return *app* behind what the settings ask of every caller, answering refusals itself; *app* if they ask nothing.

    Raises:
        SecretMissingError: A secret is not there.
    """
    check = _check_of(settings)
    if check is None:
        return app
    check.ready()
    return answering(Guard(app, check, open_paths))


class Guard:
    """An ASGI app that lets only checked callers through to *app*, except to the paths *open_paths* below the root."""

    def __init__(self, app: Any, check: Check, open_paths: Collection[str] = ()) -> None:
        self._app = app
        self._check = check
        self._open_paths = frozenset(open_paths)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket") and not self._is_open(scope):
            request = _Buffered(scope, receive)
            enter_caller(scope, await self._check(scope, request.body))
            receive = request.receive
        await self._app(scope, receive, send)

    def _is_open(self, scope: Any) -> bool:
        if scope["scheme"] == PROBE_SCHEME:
            # The process itself asks whether the function is ready; no caller can choose that scheme.
            return True
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        return scope["type"] == "http" and scope["method"] in ("GET", "HEAD") and path in self._open_paths


def _check_of(settings: Settings) -> Check | None:
    bearer, signature = (
        Credentials(names, settings.secrets_dir, setting) if names else None
        for names, setting in (
            (settings.auth_bearer_secrets, "AUTH_BEARER_SECRET"),
            (settings.auth_signature_secrets, "AUTH_SIGNATURE_SECRET"),
        )
    )
    if bearer and signature:
        return EitherCheck(BearerCheck(bearer), SignatureCheck(signature))
    if bearer:
        return BearerCheck(bearer)
    return SignatureCheck(signature) if signature else None


class _Buffered:
    """A request whose body is read at most once: where the check has read it, the app gets it in one piece."""

    def __init__(self, scope: Any, receive: Any) -> None:
        self._scope = scope
        self._receive = receive
        self._body: bytes | None = None

    async def body(self) -> bytes:
        if self._scope["type"] == "http":
            self._body = await body_reader(Request(self._scope, self._receive))()
        return self._body or b""

    async def receive(self) -> Any:
        if self._body is None:
            return await self._receive()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}


def body_reader(connection: Any) -> ReadBody:
    """Return what reads the raw body of *connection*, at most once; a WebSocket has none."""

    async def read() -> bytes:
        if not isinstance(connection, Request):
            return b""
        try:
            body: bytes = await connection.body()
        except HTTPException as exc:
            # The watchdog's limit speaks Starlette's language.
            raise Problem(exc.status_code, exc.detail) from exc
        except RuntimeError as exc:
            raise RuntimeError("a form was parsed before its signature: declare Signature on the route itself") from exc
        return body

    return read

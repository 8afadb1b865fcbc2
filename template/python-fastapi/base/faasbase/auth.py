"""
Authentication of callers as FastAPI dependencies, since the gateway authenticates nobody for `/function/*`.

    from faasbase import Bearer, Caller, Signature

    Partner = Annotated[Caller, Depends(Signature("partner-key"))]

    async def handle(order: Order, partner: Partner) -> Receipt: ...

A caller is refused before its body is parsed.  ``Bearer`` and ``Signature`` take the names of secrets; each line of a
secret is valid, so that a new value is added in front of the old one, which goes when nobody uses it any more.
`CallerDep` is the caller that the function's settings (``AUTH_BEARER_SECRET``, ``AUTH_SIGNATURE_SECRET``) ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request, Response, routing
from fastapi.dependencies.models import Dependant
from fastapi.openapi.models import APIKey, APIKeyIn, HTTPBearer
from fastapi.openapi.models import SecurityBase as SecurityModel
from fastapi.routing import APIRoute, RouteContext, iter_route_contexts
from fastapi.security.base import SecurityBase
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from .callers import CALLER, BearerCheck, Caller, Check, SignatureCheck, enter_caller
from .credentials import Credentials
from .errors import Problem, SettingError
from .guarding import body_reader, guarded
from .secrets import serving
from .settings import Settings
from .signing import SIGNATURE, TOLERANCE_SECONDS

__all__ = ["Bearer", "Caller", "CallerDep", "Signature"]

_CHECKED = "faasbase.checked"
_SIGNATURE_DESCRIPTION = (
    "HMAC-SHA256 of `<webhook-id>.<webhook-timestamp>.<body>` as https://www.standardwebhooks.com says; "
    "the headers webhook-id and webhook-timestamp go with it"
)


class _Scheme(SecurityBase):
    """What the OpenAPI document names and describes."""

    def __init__(self, scheme: tuple[str, SecurityModel]) -> None:
        self.scheme_name, self.model = scheme


class _Authenticator(_Scheme):
    """A dependency that gives the `Caller`; a route that has it asks before anything of the body is parsed."""

    def __init__(self, check: Check, scheme: tuple[str, SecurityModel]) -> None:
        super().__init__(scheme)
        self.check = check
        if serving():
            check.ready()

    async def __call__(self, connection: HTTPConnection) -> Caller:
        checked = connection.scope.setdefault(_CHECKED, {})
        if self not in checked:
            try:
                checked[self] = await self.check(connection.scope, body_reader(connection))
            except Problem as problem:
                # Understood by every FastAPI app, the user's own too.
                raise HTTPException(problem.status, problem.detail, problem.headers) from None
            enter_caller(connection.scope, checked[self])
        caller: Caller = checked[self]
        return caller


class Bearer(_Authenticator):
    """
    Asks for a token, which is a line of one of *secrets*, as ``Authorization: Bearer …``.

    Raises:
        ValueError: There is no name, or one is no name of a secret.
        SecretMissingError: The function starts, and there is no such secret.
    """

    def __init__(self, *secrets: str, description: str | None = None) -> None:
        super().__init__(BearerCheck(Credentials(secrets)), _bearer_scheme(secrets[0], description))


class Signature(_Authenticator):
    """
    Asks for a signature of Standard Webhooks with a key that is a line of one of *secrets* (see `faasbase.signing`).

    A key that begins with ``whsec_`` is base64, any other its own characters.  The message's time must be within
    *tolerance_seconds* from now, either way; calls that wait in a queue need more.  A message is taken once.

    Raises:
        ValueError: There is no name, or one is no name of a secret.
        SecretMissingError: The function starts, and there is no such secret.
    """

    def __init__(
        self, *secrets: str, tolerance_seconds: float = TOLERANCE_SECONDS, description: str | None = None
    ) -> None:
        check = SignatureCheck(Credentials(secrets), tolerance_seconds)
        super().__init__(check, _signature_scheme(secrets[0], description))


class _Documented(_Scheme):
    """Tells OpenAPI what `guarding.Guard` has asked for already."""

    async def __call__(self) -> None:
        """Ask nothing more."""


def _bearer_scheme(secret: str, description: str | None = None) -> tuple[str, SecurityModel]:
    return f"bearer-{secret}", HTTPBearer(description=description)


def _signature_scheme(secret: str, description: str | None = None) -> tuple[str, SecurityModel]:
    # OpenAPI knows no signatures; this names the header at least.
    where = {"in": APIKeyIn.header, "name": SIGNATURE, "description": description or _SIGNATURE_DESCRIPTION}
    return f"signature-{secret}", APIKey.model_validate(where)


async def _caller(connection: HTTPConnection) -> Caller:
    caller: Caller | None = connection.scope.get(CALLER)
    if caller is None:
        raise Problem(401, "nothing tells who calls", headers={"WWW-Authenticate": "Bearer"})
    return caller


CallerDep = Annotated[Caller, Depends(_caller)]


class GuardedRoute(APIRoute):
    """A route that asks its authenticators first; FastAPI itself parses the body before it asks dependencies."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()
        authenticators = list(_of_dependant(self._dependant_in_place()))
        if not authenticators:
            return answer

        async def guarded(request: Request) -> Response:
            for authenticator in authenticators:
                await authenticator(request)
            return await answer(request)

        return guarded

    def _dependant_in_place(self) -> Dependant:
        """Return what is asked for where the route is included: FastAPI makes a handler for each such place."""
        # Nothing public tells which one that is.
        told: Any = getattr(routing, "_effective_route_context_var", None)
        place: Any = told.get() if told else None
        dependant: Dependant = self.dependant if getattr(place, "original_route", None) is not self else place.dependant
        return dependant


@contextmanager
def asking_callers(app: FastAPI, settings: Settings) -> Iterator[None]:
    """
    Let the routes that *app* gets in the block ask who calls, and put what the settings ask in front of all.

    Its documentation stays open, so that one can be told there what to show.

    Raises:
        SecretMissingError: A secret that is asked for is not there.
        SettingError: A route has `CallerDep`, and nobody asks who calls.
    """
    app.router.route_class = GuardedRoute
    documented = _documented(settings)
    app.router.dependencies.extend(documented)
    yield
    for route in _routes(app.router):
        if type(route) is APIRoute:
            # One of the user's router, made before anybody could say of which class.
            route.__class__ = GuardedRoute
    # Only now: this makes the handlers, which are those of the class.
    for place in iter_route_contexts(app.routes):
        _check(place, callers_known=bool(documented))
    if documented:
        open_paths = [path for path in (app.docs_url, app.redoc_url, app.openapi_url) if path]
        app.add_middleware(_guarded, settings, open_paths)


def _guarded(app: ASGIApp, settings: Settings, open_paths: Collection[str]) -> ASGIApp:
    guarded_app: ASGIApp = guarded(app, settings, open_paths)
    return guarded_app


def _documented(settings: Settings) -> list[Any]:
    bearer, signature = settings.auth_bearer_secrets, settings.auth_signature_secrets
    schemes = [
        *([_bearer_scheme(bearer[0])] if bearer else []),
        *([_signature_scheme(signature[0])] if signature else []),
    ]
    return [Depends(_Documented(scheme)) for scheme in schemes]


def _check(place: RouteContext, *, callers_known: bool) -> None:
    dependant = getattr(place, "dependant", None)
    if dependant is None:
        return
    authenticators = list(_of_dependant(dependant))
    for authenticator in authenticators:
        authenticator.check.ready()
    if not authenticators and not callers_known and _caller in _calls(dependant):
        asks = f"{place.path} asks who calls"
        raise SettingError("AUTH_BEARER_SECRET", f"must name a secret, or AUTH_SIGNATURE_SECRET: {asks}")


def _routes(router: APIRouter) -> Iterator[BaseRoute]:
    for route in router.routes:
        inner = getattr(route, "original_router", None)
        if isinstance(inner, APIRouter):
            yield from _routes(inner)
        else:
            yield route


def _calls(dependant: Dependant) -> Iterator[Any]:
    for dependency in dependant.dependencies:
        yield dependency.call
        yield from _calls(dependency)


def _of_dependant(dependant: Dependant) -> Iterator[_Authenticator]:
    return (call for call in _calls(dependant) if isinstance(call, _Authenticator))

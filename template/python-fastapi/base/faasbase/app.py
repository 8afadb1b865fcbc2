"""The FastAPI app around what handler.py offers, with events and stored objects beside it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from .answering import answering
from .caching import activate_cache, open_cache
from .errors import Problem
from .fetching.current import activate_fetcher
from .lifecycle import Lifecycle
from .loading import Handler
from .logs import AccessLog
from .replays import Replays, activate_replays
from .settings import Settings
from .storage import activate_store, current_store, open_store
from .storage.links import OBJECTS_PATH
from .tracing import instrument
from .watchdog import Watchdog

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send


def build_app(
    handler: Handler, settings: Settings, lifecycle: Lifecycle, access_log: AccessLog | None = None
) -> Watchdog:
    """
    Return the whole app of the process.

    Raises:
        StartError: The handler cannot be served with these settings.
    """
    _require_records(handler, settings)
    surface = instrument(_SURFACES[handler.form](handler, settings))
    return Watchdog(
        _Dispatch(surface, _events(handler, settings)),
        settings,
        lifecycle,
        handler.ready,
        access_log,
    )


def _require_records(handler: Handler, settings: Settings) -> None:
    """Stop a function whose repeats could not be told from first calls."""
    if handler.idempotent:
        from .idempotency.opening import require_place

        require_place(settings, handler.idempotent)


@asynccontextmanager
async def resources(settings: Settings) -> AsyncIterator[None]:
    """
    Open what the settings name: cache, store, records, and what fetches; make all current, and close it at the end.

    Raises:
        SettingError: A URL's scheme or options are not known.
    """
    async with AsyncExitStack() as stack:
        # Every function's module is called function.handler: on one server their entries would be each other's.
        cache = open_cache(settings.cache_url, namespace=settings.qualified_name)
        stack.push_async_callback(cache.close)
        store = open_store(settings.storage_url)
        stack.push_async_callback(store.close)
        store.warm_up()
        stack.enter_context(activate_cache(cache))
        stack.enter_context(activate_store(store))
        stack.enter_context(activate_fetcher(settings.fetching))
        stack.enter_context(activate_replays(Replays()))
        await stack.enter_async_context(_records(settings))
        await stack.enter_async_context(_publisher(settings))
        await stack.enter_async_context(_dead_letters(settings))
        yield


@asynccontextmanager
async def _records(settings: Settings) -> AsyncIterator[None]:
    """Open the records of `@idempotent`, for a function that has imported it, or a site that names a place for them."""
    if not settings.idempotency_url and "faasbase.idempotency" not in sys.modules:
        yield
        return
    from .idempotency import activate_ledger, open_ledger

    async with AsyncExitStack() as stack:
        if (ledger := open_ledger(settings)) is not None:
            stack.push_async_callback(ledger.close)
        stack.enter_context(activate_ledger(ledger))
        yield


@asynccontextmanager
async def _publisher(settings: Settings) -> AsyncIterator[None]:
    """Open what `publish` sends with, for a function that has imported events."""
    if "faasbase.events" not in sys.modules or not settings.events.publish_url:
        yield
        return
    from .events.publishing import opened_publisher

    async with opened_publisher(settings):
        yield


@asynccontextmanager
async def _dead_letters(settings: Settings) -> AsyncIterator[None]:
    """Open what keeps the dead letters of pushed events; those that are fetched have their own."""
    if "faasbase.events" not in sys.modules or not (settings.events.http and settings.events.deadletter_url):
        yield
        return
    from .events.http.dead_letters import opened_dead_letters

    async with opened_dead_letters(settings):
        yield


class _Pushed(NamedTuple):
    """The app that pushed events go to, and what tells them from calls."""

    marks: Callable[[Scope], bool]
    app: ASGIApp


_FETCHES = "this function fetches its events; `http:` in EVENTS_URL would let them be pushed as well"


class _Dispatch:
    """Sends pushed events and requests for stored objects to their own apps, everything else to the surface."""

    def __init__(self, surface: ASGIApp, events: _Pushed | None) -> None:
        self._surface = surface
        self._events = events
        self._objects = instrument(answering(_serve_object))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope["path"].startswith(scope.get("root_path", "") + OBJECTS_PATH):
                await self._objects(scope, receive, send)
                return
            if self._events is not None and self._events.marks(scope):
                await self._events.app(scope, receive, send)
                return
        await self._surface(scope, receive, send)


async def _serve_object(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve an object of a store that has no server of its own, as `file:///` has none."""
    app = current_store().asgi_app
    if app is None:
        raise Problem(404, "this function's objects are served by their store")
    await app(scope, receive, send)


def _events(handler: Handler, settings: Settings) -> _Pushed | None:
    if not handler.events:
        return None
    if not settings.events.http:
        # They are fetched then: a pushed one would pass by whoever guards the broker.
        return None
    from .events.http.app import EventsApp
    from .events.http.marks import EventMarks

    marks = EventMarks(handler.events, alone=handler.form == "events")
    return _Pushed(marks, instrument(answering(EventsApp(handler.events, settings))))


def _handle_app(handler: Handler, settings: Settings) -> ASGIApp:
    from .routes import fastapi_app, route_handle

    app = fastapi_app(settings, handler.lifespan)
    with _asking_callers(app, settings):
        route_handle(app, handler.surface)
    return app


def _router_app(handler: Handler, settings: Settings) -> ASGIApp:
    from .routes import fastapi_app

    app = fastapi_app(settings, handler.lifespan)
    with _asking_callers(app, settings):
        app.include_router(handler.surface)
    return app


def _asking_callers(app: FastAPI, settings: Settings) -> AbstractContextManager[None]:
    """Let the routes that *app* gets in the block ask who calls, where the handler or the settings want that."""
    wanted = settings.auth_bearer_secrets or settings.auth_signature_secrets or "faasbase.auth" in sys.modules
    if not wanted:
        return nullcontext()
    from .auth import asking_callers

    return asking_callers(app, settings)


def _classic_app(handler: Handler, settings: Settings) -> ASGIApp:
    from .classic import ClassicApp

    return _with_lifespan(_guarded(answering(ClassicApp(handler.surface)), settings), handler.lifespan)


def _given_app(handler: Handler, settings: Settings) -> ASGIApp:
    return _guarded(handler.surface, settings)


def _guarded(app: ASGIApp, settings: Settings) -> ASGIApp:
    if not (settings.auth_bearer_secrets or settings.auth_signature_secrets):
        return app
    from .guarding import guarded

    guarded_app: ASGIApp = guarded(app, settings)
    return guarded_app


def _events_only_app(handler: Handler, settings: Settings) -> ASGIApp:
    async def nothing_else(scope: Scope, receive: Receive, send: Send) -> None:
        raise Problem(404, "this function takes events only" if settings.events.http else _FETCHES)

    return _with_lifespan(answering(nothing_else), handler.lifespan)


_SURFACES: dict[str, Callable[[Handler, Settings], ASGIApp]] = {
    "handle": _handle_app,
    "router": _router_app,
    "classic": _classic_app,
    "app": _given_app,
    "events": _events_only_app,
}


def _with_lifespan(app: ASGIApp, lifespan: Callable[[Any], Any] | None) -> ASGIApp:
    """Return *app* with start-up and shut-down, which a bare ASGI callable does not know."""
    from starlette.routing import Router

    router = Router(lifespan=lifespan)

    async def with_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        await (router if scope["type"] == "lifespan" else app)(scope, receive, send)

    return with_lifespan

"""Import the user's handler.py and tell which surface it offers; each mistake is one line with file and remedy."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from .errors import HandlerError, StartError
from .failures import HANDLER, describe_failure, place_of

if TYPE_CHECKING:
    from .events import EventHandler
    from .idempotency.marks import Mark

Form = Literal["handle", "router", "classic", "app", "events"]

_FORMS = "`handle(...)`, `handle(event, context)`, `router` (fastapi.APIRouter) or `app` (ASGI)"


@dataclass(frozen=True, slots=True)
class Handler:
    """What handler.py offers: one HTTP surface and what stands beside it."""

    form: Form
    surface: Any
    events: tuple[EventHandler, ...] = ()
    idempotent: tuple[Mark, ...] = ()
    lifespan: Callable[[Any], Any] | None = None
    ready: Callable[[], Any] | None = None


def load_handler(module_name: str = HANDLER) -> Handler:
    """
    Import *module_name* and return its handler.

    Raises:
        HandlerError: It cannot be imported, or offers no surface or more than one.
    """
    try:
        module = importlib.import_module(module_name)
    except StartError:
        raise
    except ModuleNotFoundError as exc:
        raise HandlerError(_missing_module(module_name, exc)) from exc
    except (Exception, SystemExit) as exc:
        raise HandlerError(describe_failure(exc, module_name)) from exc
    return handler_of(module)


def handler_of(module: ModuleType) -> Handler:
    """
    Return what *module* offers.

    Raises:
        HandlerError: It offers no surface, more than one, or one of the wrong kind.
    """
    name = _file_name(module)
    offered = [surface for surface in ("handle", "router", "app") if hasattr(module, surface)]
    events = _event_handlers(module)
    if len(offered) > 1:
        raise HandlerError(f"{name} offers {' and '.join(offered)}: keep exactly one of {_FORMS}")
    if not offered and not events:
        raise HandlerError(f"{name} offers nothing to call: define exactly one of {_FORMS}, or @on_event handlers")
    form: Form = "events"
    surface = None
    if offered:
        surface = getattr(module, offered[0])
        form = _FORM_OF[offered[0]](surface, name)
    lifespan, ready = _optional(module, "lifespan", name), _optional(module, "ready", name)
    return Handler(form, surface, events, _idempotent_handlers(module, surface), lifespan, ready)


def _event_handlers(module: ModuleType) -> tuple[EventHandler, ...]:
    # Nothing can be marked where the module that marks has not been imported, and importing it here costs a start.
    events = sys.modules.get("faasbase.events")
    return events.event_handlers(module) if events else ()


def _idempotent_handlers(module: ModuleType, surface: Any) -> tuple[Mark, ...]:
    idempotency = sys.modules.get("faasbase.idempotency")
    return idempotency.idempotent_handlers(module, surface) if idempotency else ()


def _handle_form(surface: Any, name: str) -> Form:
    if not callable(surface):
        raise HandlerError(f"{name}: handle must be a function")
    parameters = list(inspect.signature(surface).parameters.values())
    untyped = [p.name for p in parameters if p.annotation is p.empty and p.default is p.empty]
    if untyped == ["event", "context"] and len(parameters) == 2:
        return "classic"
    if untyped:
        raise HandlerError(
            f"{name}: handle's {', '.join(untyped)} need a type, such as `order: Order`; "
            "without types only handle(event, context) is known"
        )
    return "handle"


def _router_form(surface: Any, name: str) -> Form:
    # Without FastAPI imported the handler cannot have made a router, and importing it here would cost a start.
    fastapi = sys.modules.get("fastapi")
    if fastapi is None or not isinstance(surface, fastapi.APIRouter):
        raise HandlerError(f"{name}: router must be a fastapi.APIRouter")
    return "router"


def _app_form(surface: Any, name: str) -> Form:
    if not callable(surface):
        raise HandlerError(f"{name}: app must be an ASGI application")
    return "app"


_FORM_OF: dict[str, Callable[[Any, str], Form]] = {
    "handle": _handle_form,
    "router": _router_form,
    "app": _app_form,
}


def _optional(module: ModuleType, attribute: str, name: str) -> Callable[..., Any] | None:
    value = getattr(module, attribute, None)
    if value is not None and not callable(value):
        raise HandlerError(f"{name}: {attribute} must be a function")
    return value


def _file_name(module: ModuleType) -> str:
    path = Path(module.__file__ or module.__name__)
    return f"{path.parent.name}/{path.name}"


def _missing_module(module_name: str, exc: ModuleNotFoundError) -> str:
    missing = exc.name or "a module"
    if module_name == missing or module_name.startswith(f"{missing}."):
        return f"{module_name.replace('.', '/')}.py is not there"
    if missing.startswith("function."):
        return f"{place_of(exc, module_name)}: {missing.replace('.', '/')}.py is not there"
    return f"{place_of(exc, module_name)}: {missing.split('.')[0]} is not installed: add it to requirements.txt"

"""The shared base of OpenFaaS functions in Python: what a handler imports, by name and only when used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .caching import Cache, cached, current_cache
    from .caching.dependency import CacheDep
    from .context import CallContext, current_call
    from .errors import FaasError, FieldError, Problem, Reject, Retry
    from .events import Event, on_event
    from .metrics import counter, gauge, histogram
    from .routes import problem_responses
    from .storage import Store, current_store
    from .storage.dependency import StoreDep
    from .tracing import span

__version__ = "0.1.0"

__all__ = [
    "Cache",
    "CacheDep",
    "CallContext",
    "Event",
    "FaasError",
    "FieldError",
    "Problem",
    "Reject",
    "Retry",
    "Store",
    "StoreDep",
    "cached",
    "counter",
    "current_cache",
    "current_call",
    "current_store",
    "gauge",
    "histogram",
    "on_event",
    "problem_responses",
    "span",
]

_HOMES = {
    "caching": ("Cache", "cached", "current_cache"),
    "caching.dependency": ("CacheDep",),
    "context": ("CallContext", "current_call"),
    "errors": ("FaasError", "FieldError", "Problem", "Reject", "Retry"),
    "events": ("Event", "on_event"),
    "metrics": ("counter", "gauge", "histogram"),
    "routes": ("problem_responses",),
    "storage": ("Store", "current_store"),
    "storage.dependency": ("StoreDep",),
    "tracing": ("span",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    # PEP 562: importing everything here would make each start pay for what its handler does not use.
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)

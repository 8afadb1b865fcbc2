"""The shared base of OpenFaaS functions in Python: what a handler imports, by name and only when used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auth import Bearer, CallerDep, Signature
    from .caching import Cache, cached, current_cache
    from .caching.dependency import CacheDep
    from .callers import Caller
    from .context import CallContext, current_call
    from .errors import FaasError, FieldError, Problem, Reject, Retry
    from .events import Delivery, Event, PublishError, current_delivery, on_event, publish, publish_sync
    from .fetching import fetch
    from .idempotency import Operation, current_operation, idempotent
    from .metrics import counter, gauge, histogram
    from .routes import problem_responses
    from .secrets import Secret, secret
    from .signing import signed_headers
    from .storage import Store, current_store
    from .storage.dependency import StoreDep
    from .tracing import span

__version__ = "0.1.0"

__all__ = [
    "Bearer",
    "Cache",
    "CacheDep",
    "CallContext",
    "Caller",
    "CallerDep",
    "Delivery",
    "Event",
    "FaasError",
    "FieldError",
    "Operation",
    "Problem",
    "PublishError",
    "Reject",
    "Retry",
    "Secret",
    "Signature",
    "Store",
    "StoreDep",
    "cached",
    "counter",
    "current_cache",
    "current_call",
    "current_delivery",
    "current_operation",
    "current_store",
    "fetch",
    "gauge",
    "histogram",
    "idempotent",
    "on_event",
    "problem_responses",
    "publish",
    "publish_sync",
    "secret",
    "signed_headers",
    "span",
]

_HOMES = {
    "auth": ("Bearer", "CallerDep", "Signature"),
    "caching": ("Cache", "cached", "current_cache"),
    "caching.dependency": ("CacheDep",),
    "callers": ("Caller",),
    "context": ("CallContext", "current_call"),
    "errors": ("FaasError", "FieldError", "Problem", "Reject", "Retry"),
    "events": ("Delivery", "Event", "PublishError", "current_delivery", "on_event", "publish", "publish_sync"),
    "fetching": ("fetch",),
    "idempotency": ("Operation", "current_operation", "idempotent"),
    "metrics": ("counter", "gauge", "histogram"),
    "routes": ("problem_responses",),
    "secrets": ("Secret", "secret"),
    "signing": ("signed_headers",),
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

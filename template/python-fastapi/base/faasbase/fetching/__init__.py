"""
Fetch addresses that strangers name, without letting them reach what is inside: ``await fetch(url)``.

    fetcher.py      what users hold: hops, redirects, deadline, one log line for a failure
    current.py      the fetcher of this process, and `fetch` and `stream` on it
    policy.py       what may be fetched, as the function's settings say
    urls.py         the one spelling of an address that is taken
    addresses.py    which IP addresses are open to strangers
    resolving.py    names to addresses, in bounded threads
    exchange.py     one request and its answer on a connection to an address that was checked
    answers.py      what comes back, and how much of it
    freshness.py    how long an answer may be used again
    telemetry.py    client spans and metrics
    errors.py       what can go wrong, each a problem with its status
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .answers import Answer, Fetched, Validators
    from .current import activate_fetcher, current_fetcher, fetch, stream
    from .errors import (
        AddressRefusedError,
        BadAnswerError,
        BadUrlError,
        BusyError,
        FetchError,
        RedirectError,
        TooLargeError,
        TooSlowError,
        UnreachableError,
    )
    from .fetcher import Fetcher
    from .freshness import Freshness, freshness_of
    from .policy import FetchPolicy
    from .resolving import Resolver

__all__ = [
    "AddressRefusedError",
    "Answer",
    "BadAnswerError",
    "BadUrlError",
    "BusyError",
    "FetchError",
    "FetchPolicy",
    "Fetched",
    "Fetcher",
    "Freshness",
    "RedirectError",
    "Resolver",
    "TooLargeError",
    "TooSlowError",
    "UnreachableError",
    "Validators",
    "activate_fetcher",
    "current_fetcher",
    "fetch",
    "freshness_of",
    "stream",
]

_HOMES = {
    "answers": ("Answer", "Fetched", "Validators"),
    "current": ("activate_fetcher", "current_fetcher", "fetch", "stream"),
    "errors": tuple(name for name in __all__ if name.endswith("Error")),
    "fetcher": ("Fetcher",),
    "freshness": ("Freshness", "freshness_of"),
    "policy": ("FetchPolicy",),
    "resolving": ("Resolver",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    # A function that fetches nothing pays for its policy alone.
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)

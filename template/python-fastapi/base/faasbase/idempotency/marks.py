"""Find idempotent handlers by the mark that the decorator leaves: the loader looks, nothing is registered."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .results import Results

_MARK = "__faasbase_idempotent__"


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """What is known of an idempotent handler without running it."""

    results: Results
    by_header: bool
    """Whether the header has its key, and not an expression."""
    required: bool
    """Whether it refuses calls without a key."""


def put_mark(function: Callable[..., Any], mark: Mark) -> None:
    """Leave *mark* on *function*, where `functools.wraps` takes it along."""
    setattr(function, _MARK, mark)


def mark_of(function: Any) -> Mark | None:
    """Return the mark of *function*; None where it is not idempotent, or no function."""
    # Only functions are asked: what else stands in a module may break under questions, as Flask's proxies do.
    found = getattr(function, _MARK, None) if inspect.isfunction(function) else None
    return found if isinstance(found, Mark) else None


def idempotent_handlers(module: ModuleType, surface: Any) -> tuple[Mark, ...]:
    """
    Return the marks in *module*, in those modules of its package that are imported by now, and of *surface*'s routes.

    One that is made elsewhere, or later, is looked at when it is first called.
    """
    package = module.__name__.rpartition(".")[0]
    siblings = [m for name, m in sys.modules.items() if package and name.startswith(f"{package}.")]
    candidates = [*_functions(module), *(f for sibling in siblings for f in _functions(sibling)), *_endpoints(surface)]
    return tuple(dict.fromkeys(mark for mark in map(mark_of, candidates) if mark is not None))


def _functions(module: ModuleType) -> Iterator[Any]:
    # A copy: another thread may be importing.
    for value in list(vars(module).values()):
        if inspect.isclass(value) and value.__module__ == module.__name__:
            yield from (getattr(member, "__func__", member) for member in vars(value).values())
        else:
            yield value


def _endpoints(surface: Any) -> Iterator[Any]:
    for route in getattr(surface, "routes", ()):
        yield getattr(route, "endpoint", None)
        # FastAPI keeps a router that was included as it is.
        yield from _endpoints(getattr(route, "original_router", route))

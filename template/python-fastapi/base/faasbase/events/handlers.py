"""Marked functions, the loader that finds them, and the events that each takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ..durations import parse_duration
from ..errors import HandlerError
from .envelope import Decode, Event

Function = TypeVar("Function", bound=Callable[..., Any])

_MARK = "__faasbase_events__"
_MAX_BATCH = 10_000


@dataclass(frozen=True, slots=True)
class _Mark:
    types: tuple[str, ...]
    decode: Decode | None
    batch_size: int
    batch_seconds: float


@dataclass(frozen=True, slots=True)
class EventHandler:
    """A marked function, the types it takes and the model that its events are validated with."""

    function: Callable[[Any], Any]
    types: tuple[str, ...]
    model: type[Event[Any]]
    decode: Decode | None = None
    is_async: bool = True
    batch_size: int = 0
    """How many events a call of it takes at most; 0 where it takes single ones."""
    batch_seconds: float = 0.0
    """How long the first event of a batch waits for others."""

    @property
    def name(self) -> str:
        """The function's own name, for logs and spans."""
        return self.function.__name__

    @property
    def wanted(self) -> Any:
        """What the handler's events have for data."""
        return self.model.model_fields["data"].annotation


def on_event(
    *types: str, decode: Decode | None = None, batch_size: int = 100, batch_wait: float | str = 0.1
) -> Callable[[Function], Function]:
    """
    Mark a function as the handler of events of these *types*; the loader finds it, nothing is registered.

    It takes one ``Event[T]``, or ``list[Event[T]]``: up to *batch_size* events that came within *batch_wait* (seconds,
    or text such as ``"1s"``).  A batch is settled as a whole, unless the handler returns a list of one value an event:
    None for a settled one, `Retry` or `Reject` for others.  Where events of a key are kept in order, a batch has one of
    each key at most: where there are few keys, take single events, or set ``EVENTS_ORDER=none``.  *decode* makes data
    of bytes where no content type does.

    Raises:
        TypeError: No type is given.
        ValueError: *batch_size* is not from 1 to 10,000, or *batch_wait* no duration.
    """
    if not types or not all(isinstance(kind, str) and kind for kind in types):
        raise TypeError('on_event needs the types of its events, such as @on_event("order.created")')
    if not 0 < batch_size <= _MAX_BATCH:
        raise ValueError(f"batch_size must be from 1 to {_MAX_BATCH}")
    seconds = parse_duration(batch_wait) if isinstance(batch_wait, str) else float(batch_wait)
    if not seconds >= 0:
        raise ValueError("batch_wait must not be negative")
    mark = _Mark(types, decode, batch_size, seconds)

    def marked(function: Function) -> Function:
        setattr(function, _MARK, mark)
        return function

    return marked


def event_handlers(module: ModuleType) -> tuple[EventHandler, ...]:
    """
    Return the marked functions of *module*.

    Raises:
        HandlerError: A handler does not take one ``Event[...]`` or a list of them, or two handlers take one type.
    """
    marked = [value for value in vars(module).values() if callable(value) and hasattr(value, _MARK)]
    handlers = tuple(_handler(function) for function in dict.fromkeys(marked))
    taken: dict[str, str] = {}
    for handler in handlers:
        for kind in handler.types:
            if kind in taken:
                raise HandlerError(f"events of type {kind} have two handlers: {taken[kind]} and {handler.name}")
            taken[kind] = handler.name
    return handlers


def _handler(function: Callable[..., Any]) -> EventHandler:
    mark: _Mark = getattr(function, _MARK)
    hint = _hint(function)
    is_batch = get_origin(hint) is list
    return EventHandler(
        function,
        mark.types,
        _model(function, get_args(hint)[0] if is_batch else hint),
        mark.decode,
        inspect.iscoroutinefunction(function),
        mark.batch_size if is_batch else 0,
        mark.batch_seconds,
    )


def _hint(function: Callable[..., Any]) -> Any:
    parameters = list(inspect.signature(function).parameters.values())
    return get_type_hints(function).get(parameters[0].name) if len(parameters) == 1 else None


def _model(function: Callable[..., Any], hint: Any) -> type[Event[Any]]:
    if hint is Event:
        return Event[Any]
    if inspect.isclass(hint) and issubclass(hint, Event):
        return hint
    raise HandlerError(
        f"@on_event {function.__name__} must take one parameter typed Event[...] or list[Event[...]], "
        "such as Event[Order]"
    )

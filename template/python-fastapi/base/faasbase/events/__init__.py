"""
Events: one handler, marked once, for whatever brings them.

    @on_event("order.created")
    async def fulfil(event: Event[Order]) -> None: ...

Returning settles the event; `Retry` or an unexpected exception has it delivered again; `Reject`, or data that does not
validate, gives it up.  Events are CloudEvents 1.0 (https://github.com/cloudevents/spec).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from types import ModuleType
from typing import Any, Generic, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, Field

from ..errors import HandlerError

Data = TypeVar("Data")
Function = TypeVar("Function", bound=Callable[..., Any])

_MARK = "__faasbase_event_types__"


class Event(BaseModel, Generic[Data]):
    """A CloudEvent 1.0 whose data is validated as *Data*; unknown attributes are extensions."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    id: str = Field(min_length=1)
    source: str = Field(min_length=1)
    type: str = Field(min_length=1)
    specversion: str = Field("1.0", pattern=r"^1\.0$")
    subject: str | None = None
    time: datetime | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    extensions: dict[str, str] = Field(default_factory=dict)
    data: Data


@dataclass(frozen=True, slots=True)
class EventHandler:
    """A marked function, the types it takes and the model that its events are validated with."""

    function: Callable[[Any], Any]
    types: tuple[str, ...]
    model: type[Event[Any]]

    @property
    def name(self) -> str:
        """The function's own name, for logs and spans."""
        return self.function.__name__


def on_event(*types: str) -> Callable[[Function], Function]:
    """
    Mark a function as the handler of events of these *types*; the loader finds it, nothing is registered.

    Raises:
        TypeError: No type is given.
    """
    if not types or not all(isinstance(kind, str) and kind for kind in types):
        raise TypeError('on_event needs the types of its events, such as @on_event("order.created")')

    def mark(function: Function) -> Function:
        setattr(function, _MARK, types)
        return function

    return mark


def event_handlers(module: ModuleType) -> tuple[EventHandler, ...]:
    """
    Return the marked functions of *module*.

    Raises:
        HandlerError: A handler does not take one ``Event[...]``, or two handlers take one type.
    """
    marked = [value for value in vars(module).values() if callable(value) and hasattr(value, _MARK)]
    handlers = tuple(EventHandler(f, getattr(f, _MARK), _event_model(f)) for f in marked)
    taken: dict[str, str] = {}
    for handler in handlers:
        for kind in handler.types:
            if kind in taken:
                raise HandlerError(f"events of type {kind} have two handlers: {taken[kind]} and {handler.name}")
            taken[kind] = handler.name
    return handlers


def _event_model(function: Callable[..., Any]) -> type[Event[Any]]:
    parameters = list(inspect.signature(function).parameters.values())
    hints = get_type_hints(function)
    hint = hints.get(parameters[0].name) if len(parameters) == 1 else None
    if hint is Event:
        return Event[Any]
    if inspect.isclass(hint) and issubclass(hint, Event):
        return hint
    raise HandlerError(f"@on_event {function.__name__} must take one parameter typed Event[...], such as Event[Order]")

"""Which operation a call means, and which payload: its key and its fingerprint."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_type_hints

from ..caching.keys import key_of, name_of
from ..context import current_call
from ..errors import FieldError, Problem
from .payloads import canonical, is_caller, is_event, is_payload

HEADER = "Idempotency-Key"

MAX_HEADER_CHARACTERS = 255

_HEADER_NAME = HEADER.lower().encode("ascii")
_VISIBLE = re.compile(rb"[\x21-\x7e]{1,%d}" % MAX_HEADER_CHARACTERS)
_MAX_KEY_CHARACTERS = 1024
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True, slots=True)
class Named:
    """The operation that a call means; *event_id* is that of the event which it is the delivery of."""

    key: str
    fingerprint: str
    event_id: str | None = None


class Naming:
    """Finds key and fingerprint of calls of *function*; *key* and *fingerprint* as `idempotent` takes them."""

    def __init__(
        self,
        function: Callable[..., Any],
        key: Callable[..., Any] | str | None,
        fingerprint: Callable[..., Any] | None,
        version: int | str,
    ) -> None:
        self.function = name_of(function)
        self._original, self._key, self._fingerprint, self._version = function, key, fingerprint, version
        self._signature = inspect.signature(function)
        if isinstance(key, str):
            self._check_expression(key)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the arguments by name, defaults too."""
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments

    def takes_event(self, arguments: Iterable[Any]) -> bool:
        """Tell whether a call with *arguments* is the delivery of an event, which nobody waits for the result of."""
        return any(map(is_event, arguments))

    async def read(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], required: bool) -> Named | None:
        """
        Return what the call means; None where it has no key and needs none.

        Raises:
            Problem: 400, the key is missing or malformed.
            TypeError: The payload has no canonical form.
        """
        arguments = self.bind(args, kwargs)
        event = next(filter(is_event, arguments.values()), None)
        content = self._content(args, kwargs, arguments, event)
        if content is None:
            if required:
                raise self._missing()
            return None
        if self._fingerprint is not None:
            payload = self._fingerprint(*args, **kwargs)
        else:
            payload = await self._payload(arguments)
        fingerprint = self._digest(payload).rpartition(":")[2]
        return Named(self._digest(content), fingerprint, getattr(event, "id", None))

    def _content(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], arguments: dict[str, Any], event: Any
    ) -> list[Any] | None:
        if self._key is not None:
            given = self._key(*args, **kwargs) if callable(self._key) else _resolve(self._key, arguments)
            if given is None or given == "":
                return None
            if len(str(given)) > _MAX_KEY_CHARACTERS:
                raise Problem(400, f"the key of the operation is longer than {_MAX_KEY_CHARACTERS} characters")
            return ["given", given]
        if event is not None:
            return ["event", event.source, event.id]
        key = _header()
        return None if key is None else ["header", key, *_callers(arguments)]

    async def _payload(self, arguments: dict[str, Any]) -> Any:
        chosen = {name: value for name, value in arguments.items() if name not in self._beside and is_payload(value)}
        return await canonical(chosen)

    def _digest(self, content: Any) -> str:
        try:
            return key_of(self.function, self._version, content)
        except TypeError as exc:
            reason = str(exc).partition(":")[0]
            raise TypeError(f"{reason}: give @idempotent of {self.function} key= and fingerprint=") from None

    def _missing(self) -> Problem:
        if self._key is not None:
            return Problem(400, "the request has no key that tells its operation from others")
        error = FieldError(HEADER, "is missing")
        return Problem(400, f"the header {HEADER} is needed, so that a repeat is not taken for more", errors=[error])

    def _check_expression(self, key: str) -> None:
        if not _DOTTED.fullmatch(key) or key.partition(".")[0] not in self._signature.parameters:
            name = self._original.__qualname__
            raise TypeError(f"key={key!r} must be a parameter of {name}, or fields below one, such as order.id")

    @cached_property
    def _beside(self) -> frozenset[str]:
        """The parameters that are no part of the payload: dependencies, headers and cookies."""
        params = sys.modules.get("fastapi.params")
        if params is None:
            return frozenset()
        kinds = (params.Depends, params.Header, params.Cookie)
        hints = get_type_hints(self._original, include_extras=True)
        return frozenset(
            name
            for name, parameter in self._signature.parameters.items()
            if isinstance(parameter.default, kinds)
            or any(isinstance(extra, kinds) for extra in getattr(hints.get(name), "__metadata__", ()))
        )


def _header() -> str | None:
    call = current_call()
    raw = call.raw_headers.get(_HEADER_NAME) if call else None
    if raw is None:
        return None
    # A string of RFC 9651, as the draft of the header has it, has quotes; most clients send none.
    bare = raw[1:-1] if len(raw) > 2 and raw[:1] == raw[-1:] == b'"' else raw
    if not _VISIBLE.fullmatch(bare):
        error = FieldError(HEADER, f"must be 1 to {MAX_HEADER_CHARACTERS} visible characters of ASCII")
        raise Problem(400, f"the header {HEADER} cannot be used", errors=[error])
    return bare.decode("ascii")


def _callers(arguments: Mapping[str, Any]) -> list[str]:
    """Return the secrets that the call has shown: clients choose keys, and one's must never name another's result."""
    call = current_call()
    shown = {caller.secret for caller in (call.callers if call else ())}
    shown.update(value.secret for value in arguments.values() if is_caller(value))
    return sorted(shown)


def _resolve(expression: str, arguments: Mapping[str, Any]) -> Any:
    first, *rest = expression.split(".")
    value = arguments[first]
    for name in rest:
        if value is None:
            return None
        value = value.get(name) if isinstance(value, Mapping) else getattr(value, name)
    return value

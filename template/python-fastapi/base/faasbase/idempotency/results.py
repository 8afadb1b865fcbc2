"""What a handler returns, as it is recorded: a line of JSON that says what it is, and the JSON or body behind it."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterable
from functools import cached_property, reduce
from operator import or_
from types import UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin, get_type_hints

from ..caching.values import Unfit, Values, values_of

if TYPE_CHECKING:
    from starlette.responses import Response

UNKEPT = b'{"kind":"unkept"}\n'
"""Recorded where the result cannot be: the effect has happened all the same."""


class UnkeptError(Exception):
    """The operation was done, and its result was not kept."""


class Results:
    """Records and replays what *function* returns, by its annotation, which may name types defined further down."""

    def __init__(self, function: Callable[..., Any]) -> None:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError("a generator cannot be idempotent: return its result as a whole")
        if "return" not in getattr(function, "__annotations__", {}):
            raise TypeError(f"{function.__qualname__} needs a return annotation to be idempotent")
        self._function = function

    def check(self) -> None:
        """
        Make sure that the annotation can be kept.

        Raises:
            TypeError: It cannot.
        """
        try:
            _ = self._values
        except TypeError:
            raise
        except Exception as exc:
            name = self._function.__qualname__
            raise TypeError(f"the return annotation of {name} is nothing that JSON carries") from exc

    def pack(self, value: Any, arguments: Iterable[Any] = (), most_bytes: int = sys.maxsize) -> bytes | None:
        """Return *value*, and the status and headers that were set on responses among *arguments*; None if unfit."""
        if _is_response(value):
            packed = _packed_response(value)
        elif self._values is None:
            packed = None
        else:
            encoded = self._values.pack(value)
            packed = None if isinstance(encoded, Unfit) else ({"kind": "value"}, encoded)
        if packed is None:
            return None
        head, body = packed
        given = [[r.status_code, _texts(r.raw_headers)] for r in arguments if _is_response(r)]
        line = json.dumps({**head, "given": given} if given else head).encode()
        return line + b"\n" + body if len(line) + len(body) < most_bytes else None

    def unpack(self, record: bytes, arguments: Iterable[Any] = ()) -> Any:
        """
        Return what was packed, and set responses among *arguments* as they were.

        Raises:
            UnkeptError: The result was not kept, or another version of the function wrote it.
        """
        line, _, body = record.partition(b"\n")
        try:
            head = json.loads(line)
            value = self._unpacked(head, body)
        except UnkeptError:
            raise
        except Exception as exc:
            raise UnkeptError from exc
        responses = (r for r in arguments if _is_response(r))
        for response, (status, headers) in zip(responses, head.get("given", ()), strict=False):
            response.status_code = status
            response.raw_headers[:] = _raw(headers)
        return value

    def _unpacked(self, head: dict[str, Any], body: bytes) -> Any:
        if head["kind"] == "response":
            from starlette.responses import Response

            response = Response(body, head["status"])
            response.raw_headers = _raw(head["headers"])
            return response
        if head["kind"] != "value" or self._values is None:
            raise UnkeptError
        return self._values.unpack(body)

    @cached_property
    def _values(self) -> Values[Any] | None:
        """The codec of what is no response; None where the annotation is nothing else."""
        hint = get_type_hints(self._function, include_extras=True)["return"]
        options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        plain = [option for option in options if not _is_response_type(option)]
        if not plain:
            if all(map(_streams, options)):
                raise TypeError(f"{self._function.__qualname__} must return a response with a body to be idempotent")
            return None
        return values_of(reduce(or_, plain) if len(plain) > 1 else plain[0])


def _is_response(value: Any) -> bool:
    return isinstance(value, _response_types())


def _is_response_type(hint: Any) -> bool:
    return inspect.isclass(hint) and issubclass(hint, _response_types())


def _streams(kind: Any) -> bool:
    responses = sys.modules["starlette.responses"]
    return issubclass(kind, (responses.StreamingResponse, responses.FileResponse))


def _response_types() -> tuple[type, ...]:
    # Where starlette has not been imported no value can be one of its responses.
    responses = sys.modules.get("starlette.responses")
    return (responses.Response,) if responses else ()


def _packed_response(response: Response) -> tuple[dict[str, Any], bytes] | None:
    body = getattr(response, "body", None)
    if not isinstance(body, bytes) or _streams(type(response)):
        return None
    return {"kind": "response", "status": response.status_code, "headers": _texts(response.raw_headers)}, body


def _texts(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


def _raw(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]

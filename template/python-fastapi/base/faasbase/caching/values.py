"""Turn results into JSON and back by their type; never pickle, whose bytes can run code.

pydantic is imported by the first value: a function that caches nothing and uses no FastAPI starts without it.
"""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from ..errors import Problem

if TYPE_CHECKING:
    from pydantic import ConfigDict, TypeAdapter

T = TypeVar("T")

# Bytes that are no UTF-8, and inf and nan, survive the round trip.
_CONFIG: ConfigDict = {"ser_json_bytes": "base64", "val_json_bytes": "base64", "ser_json_inf_nan": "constants"}

_ABSENT = b"!"
"""No JSON begins with it."""


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """A value that was in the cache, or the news that there is none to be had."""

    result: T | None
    absent: Problem | None = None

    @property
    def value(self) -> T:
        """The value; raises the problem that the load ended with, where that was what was kept."""
        if self.absent is not None:
            raise self.absent
        return cast(T, self.result)


@dataclass(frozen=True, slots=True)
class Unfit(Generic[T]):
    """A value that JSON cannot carry: those who wait for it get it as it is, and no cache does."""

    value: T
    reason: str


Packed = bytes | Unfit[Any]


class Values(Generic[T]):
    """Encodes and decodes the values of one type."""

    def __init__(self, returns: Any) -> None:
        self._adapter: TypeAdapter[T] = _adapter(returns)

    def pack(self, value: T) -> bytes | Unfit[T]:
        """Return *value* as JSON, or as it is where it would not come back from there as what its type promises."""
        try:
            encoded = self._adapter.dump_json(value, round_trip=True, warnings="error")
            decoded = self._adapter.validate_json(encoded)
            lost = b"null" in encoded and _nulled(self._plain(value), self._plain(decoded))
        except Exception as exc:  # noqa: BLE001 - whatever a model's own code raises, a cache adds no error
            return Unfit(value, type(exc).__name__)
        return Unfit(value, "null in the place of a value") if lost else encoded

    def unpack(self, packed: Packed) -> T:
        """Return what was packed; raise it if it is a problem."""
        if isinstance(packed, Unfit):
            return cast(T, packed.value)
        return _absent(packed).value if packed.startswith(_ABSENT) else self._adapter.validate_json(packed)

    def find(self, encoded: bytes | None) -> Found[T] | None:
        """Return what was cached, which may be None itself, or None where nothing fit for this type was."""
        if encoded is None:
            return None
        try:
            return _absent(encoded) if encoded.startswith(_ABSENT) else Found(self._adapter.validate_json(encoded))
        except Exception:  # noqa: BLE001 - as in `pack`
            # Another version of the function wrote it, before its type changed.
            return None

    def _plain(self, value: T) -> Any:
        return self._adapter.dump_python(value, round_trip=True, warnings=False)


def pack_absent(problem: Problem) -> bytes:
    """Return *problem*, a 404, as what is cached in a value's place."""
    return _ABSENT + json.dumps([problem.status, problem.detail, problem.title]).encode()


def _absent(encoded: bytes) -> Found[Any]:
    status, detail, title = json.loads(encoded[len(_ABSENT) :])
    return Found(None, Problem(int(status), str(detail), title=str(title)))


def values_of(returns: Any) -> Values[Any]:
    """Return the codec of the type *returns*, the same one each time: building it costs a millisecond."""
    if isinstance(returns, Values):
        return returns
    if isinstance(returns, Hashable):
        return _known(returns)
    return Values(returns)


def _nulled(before: Any, after: Any) -> bool:
    """Tell whether JSON has put null in the place of a value, as it does with the NaN of a model."""
    if after is None:
        return before is not None
    if isinstance(before, dict) and isinstance(after, dict):
        before, after = before.values(), after.values()
    elif not (isinstance(before, list | tuple) and isinstance(after, list | tuple)):
        return False
    return any(map(_nulled, before, after))


@lru_cache(maxsize=256)
def _known(returns: Any) -> Values[Any]:
    return Values(returns)


def _adapter(returns: Any) -> TypeAdapter[Any]:
    from pydantic import PydanticUserError, TypeAdapter

    if isinstance(returns, TypeAdapter):
        return returns
    try:
        return TypeAdapter(returns, config=_CONFIG)
    except PydanticUserError:
        # Models, dataclasses and typed dicts bring their own configuration and refuse another.
        return TypeAdapter(returns)

"""Turn results into JSON and back by their type; never pickle, whose bytes can run code.

pydantic is imported by the first value: a function that caches nothing and uses no FastAPI starts without it.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from pydantic import ConfigDict, TypeAdapter

T = TypeVar("T")

# Bytes that are no UTF-8, and inf and nan, survive the round trip.
_CONFIG: ConfigDict = {"ser_json_bytes": "base64", "val_json_bytes": "base64", "ser_json_inf_nan": "constants"}


@dataclass(frozen=True, slots=True)
class Found(Generic[T]):
    """A value that was in the cache."""

    value: T


class Values(Generic[T]):
    """Encodes and decodes the values of one type."""

    def __init__(self, returns: Any) -> None:
        self._returns = returns
        self._adapter: TypeAdapter[T] = _adapter(returns)

    def encode(self, value: T) -> bytes:
        """
        Return *value* as JSON.

        Raises:
            TypeError: *value* is not what its type promises, so that what comes out of the cache would differ.
        """
        from pydantic_core import PydanticSerializationError

        try:
            return self._adapter.dump_json(value, round_trip=True, warnings="error")
        except PydanticSerializationError as exc:
            raise TypeError(f"a cached value is no {self._returns!r}, as its annotation says") from exc

    def decode(self, encoded: bytes) -> T:
        """Return the value; raises ValueError (pydantic's) where *encoded* was written for another type."""
        return self._adapter.validate_json(encoded)

    def find(self, encoded: bytes | None) -> Found[T] | None:
        """Return what was cached, which may be None itself, or None where nothing fit for this type was."""
        if encoded is None:
            return None
        try:
            return Found(self.decode(encoded))
        except ValueError:
            # Another version of the function wrote it, before its type changed.
            return None


def values_of(returns: Any) -> Values[Any]:
    """Return the codec of the type *returns*, the same one each time: building it costs a millisecond."""
    if isinstance(returns, Values):
        return returns
    if isinstance(returns, Hashable):
        return _known(returns)
    return Values(returns)


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

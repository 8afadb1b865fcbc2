"""Name a cached result by function, version and content: ``handler.quote:v1:5f70bf18a086…``."""

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping, Set
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from hashlib import sha256
from pathlib import PurePath
from typing import Any
from uuid import UUID

_AS_TEXT = (date, time, timedelta, Decimal, UUID, PurePath)


def key_of(function: str, version: int | str, content: Any) -> str:
    """Return the key; equal *content* gives equal keys, and content of other types or order another key."""
    text = json.dumps(_canonical(content), ensure_ascii=True, separators=(",", ":"))
    return f"{function}:v{version}:{sha256(text.encode()).hexdigest()}"


def name_of(function: Callable[..., Any]) -> str:
    """Return module and name of *function*, without the colons and brackets that have a meaning elsewhere."""
    qualified = f"{function.__module__}.{function.__qualname__}"
    return qualified.replace("<locals>.", "").replace(":", "_")


def function_part(key: str) -> str:
    """Return what may be shown of *key* in traces: the function, not the content."""
    return key.partition(":")[0] if ":" in key else ""


def _canonical(value: Any) -> Any:
    """
    Spell *value* in JSON so that no two different values are spelt alike.

    Text, numbers, booleans and None stand for themselves; all else is a list that begins with its type.
    """
    if isinstance(value, Enum):
        return [_type(value), value.name]
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, (bytes, bytearray)):
        return ["bytes", value.hex()]
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, *map(_canonical, value)]
    if isinstance(value, Mapping):
        return ["map", *_sorted([_canonical(k), _canonical(v)] for k, v in value.items())]
    if isinstance(value, Set):
        return ["set", *_sorted(map(_canonical, value))]
    return [_type(value), *_parts(value)]


def _parts(value: Any) -> list[Any]:
    # Where pydantic has not been imported no value can be a model.
    pydantic = sys.modules.get("pydantic")
    if pydantic and isinstance(value, pydantic.BaseModel):
        return [[name, _canonical(item)] for name, item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return [[name, _canonical(getattr(value, name))] for name in names]
    if isinstance(value, _AS_TEXT):
        return [str(value)]
    if isinstance(value, (str, int, float)):
        return [value]
    kind = type(value).__name__
    raise TypeError(f"an argument of type {kind} has no canonical form: give @cached a key= function")


def _sorted(items: Any) -> list[Any]:
    return sorted(items, key=lambda item: json.dumps(item, ensure_ascii=True))


def _type(value: object) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}"

"""``@cached``: a function whose results are kept for a time."""

import inspect
from collections.abc import Awaitable, Callable, Coroutine
from functools import cached_property, partial, wraps
from typing import Any, ParamSpec, Protocol, TypeVar, cast, get_type_hints, overload

from ..durations import parse_duration
from .cache import current_cache
from .keeping import Keeping
from .keys import key_of, name_of
from .values import Values, values_of

P = ParamSpec("P")
T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)


class CachedAsync(Protocol[P, R_co]):
    """An ``async def`` whose results are cached."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of the result for these arguments."""

    async def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forget the result for these arguments."""


class CachedPlain(Protocol[P, R_co]):
    """A ``def`` whose results are cached; it is called from threads, as FastAPI calls handlers that are a ``def``."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...

    def key(self, *args: P.args, **kwargs: P.kwargs) -> str:
        """Return the key of the result for these arguments."""

    def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Forget the result for these arguments."""


class Decorator(Protocol):
    """What `cached` returns: keeps the function's parameters and result type."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, T]]) -> CachedAsync[P, T]: ...  # type: ignore[overload-overlap]

    @overload
    def __call__(self, function: Callable[P, T]) -> CachedPlain[P, T]: ...


def cached(
    *,
    ttl: float | str,
    key: Callable[..., Any] | None = None,
    version: int | str = 1,
    negative_ttl: float | str | None = None,
    stale_if_error: float | str | None = None,
) -> Decorator:
    """
    Keep what the function returns for *ttl*, seconds or a duration such as ``"10m"``.

    Entries are told apart by all arguments, whose types must have one clear spelling: numbers, text, bytes, dates,
    collections, models and dataclasses.  *key*, called with the same arguments, returns what to tell them apart by
    instead (needed for methods, sessions and requests).  Raise *version* when the function's meaning changes.  Results
    travel as JSON of the annotated return type, so the function needs one; None is kept too, errors are not.  A result
    that JSON cannot carry (a model's NaN, bytes of a model that are no UTF-8) is returned and not kept.

    *ttl* is the longest that a result is kept: some are kept a tenth less, so that not all end together.  None, and a
    ``Problem`` with status 404, are kept for *negative_ttl* where that is given.  With *stale_if_error* a result is
    kept that much longer and returned where the function fails (by any error but a ``Problem`` below 500), at the price
    of its size a second time.

    Raises:
        ValueError: One of the times is no duration, or not more than zero.
        TypeError: The function has no return annotation, or is a generator.
    """
    keeping = _keeping(ttl, negative_ttl, stale_if_error)

    def decorate(function: Callable[..., Any]) -> Any:
        entry = _Entries(function, key, version)
        make = _cached_async if inspect.iscoroutinefunction(function) else _cached_plain
        return make(function, entry, keeping)

    return cast(Decorator, decorate)


def _keeping(ttl: float | str, negative_ttl: float | str | None, stale_if_error: float | str | None) -> Keeping:
    return Keeping(
        ttl_seconds=_seconds(ttl, "ttl"),
        negative_ttl_seconds=None if negative_ttl is None else _seconds(negative_ttl, "negative_ttl"),
        stale_if_error_seconds=0.0 if stale_if_error is None else _seconds(stale_if_error, "stale_if_error"),
    )


def _seconds(duration: float | str, name: str) -> float:
    seconds = parse_duration(duration) if isinstance(duration, str) else float(duration)
    if not seconds > 0:
        raise ValueError(f"{name} must be more than zero")
    return seconds


class _Entries:
    """The names and the codec of one function's results."""

    def __init__(self, function: Callable[..., Any], key: Callable[..., Any] | None, version: int | str) -> None:
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise TypeError("a generator cannot be cached: return a list")
        if "return" not in function.__annotations__:
            raise TypeError(f"{function.__qualname__} needs a return annotation to be cached")
        self._function, self._key, self._version = function, key, version
        self._name = name_of(function)
        self._signature = inspect.signature(function)

    @cached_property
    def values(self) -> Values[Any]:
        # At the first call, not at decoration: the annotation may name a class that is defined further down.
        return values_of(get_type_hints(self._function, include_extras=True)["return"])

    def key(self, *args: Any, **kwargs: Any) -> str:
        return key_of(self._name, self._version, self._content(args, kwargs))

    def _content(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._key is not None:
            return self._key(*args, **kwargs)
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return bound.arguments


def _cached_async(function: Callable[..., Awaitable[Any]], entries: _Entries, keeping: Keeping) -> Any:
    @wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        return await current_cache().get_or_load(
            entries.key(*args, **kwargs),
            partial(function, *args, **kwargs),
            **keeping.as_arguments(),
            returns=entries.values,
        )

    async def invalidate(*args: Any, **kwargs: Any) -> None:
        await current_cache().delete(entries.key(*args, **kwargs))

    call.__dict__.update(key=entries.key, invalidate=invalidate)
    return call


def _cached_plain(function: Callable[..., Any], entries: _Entries, keeping: Keeping) -> Any:
    @wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return current_cache().blocking.get_or_load(
            entries.key(*args, **kwargs),
            partial(function, *args, **kwargs),
            **keeping.as_arguments(),
            returns=entries.values,
        )

    def invalidate(*args: Any, **kwargs: Any) -> None:
        current_cache().blocking.delete(entries.key(*args, **kwargs))

    call.__dict__.update(key=entries.key, invalidate=invalidate)
    return call

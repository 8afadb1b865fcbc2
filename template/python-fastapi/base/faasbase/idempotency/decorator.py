"""``@idempotent``: a handler whose repeats, by the same key, get the first one's result."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, TypeVar, cast

from ..context import current_call
from ..durations import parse_duration
from ..errors import Problem, Reject, Retry
from .attempt import OUTCOMES, Attempt, logger
from .backend import Done, Mismatch, Running
from .ledger import Wanted, current_ledger
from .marks import Mark, put_mark
from .naming import Named, Naming
from .operation import entered
from .results import UNKEPT, Results, UnkeptError

Function = TypeVar("Function", bound=Callable[..., Any])

REPLAYED = (b"idempotency-replayed", b"true")
"""The header of an answer that is a repeat of an earlier one."""

_LONGEST_RETRY_SECONDS = 5.0
_MARGIN_SECONDS = 0.1


def idempotent(
    *,
    ttl: float | str = "24h",
    in_progress: float | str = "60s",
    wait: float | str = 0.0,
    key: Callable[..., Any] | str | None = None,
    fingerprint: Callable[..., Any] | None = None,
    required: bool = True,
    version: int | str = 1,
) -> Callable[[Function], Function]:
    """
    Run a handler once per key, and answer repeats with the result of that run for *ttl*.

    The key of a call is its header ``Idempotency-Key`` (400 without one, unless not *required*: then it just runs), of
    an event its source and id.  *key* is a function of the handler's arguments, or an expression such as
    ``"order.id"``, in their place.  Keys belong to one function, handler and *version*; one that was used with another
    payload is refused (422; an event is given up).  The payload is all arguments but dependencies, headers, cookies and
    what describes the call; *fingerprint* returns another one.  Durations are seconds or text such as ``"10m"``.

    While one run is under way others wait for its result, for *wait* at most, and are told 409 then, an event's sender
    503, with ``Retry-After``; of an event's attempts that is none.  A run is the owner by a lease of *in_progress*,
    which it renews: that long nothing happens after a process was killed or a call was cancelled, for what it had begun
    may still be on its way.  A run that raises lets the next one begin at once, under the same payload; its error is
    not kept, a `Problem` neither.

    **What is guaranteed.**  One owner at a time by lease, one result per key: a run that has lost its lease answers
    with the result of its successor, or 503.  That an *effect* happens once is guaranteed only where it looks: see
    `current_operation` for an id, a fence, and effects in one step with the record.  All of it holds for as long as
    the server keeps its records: give it persistence, and ``maxmemory-policy noeviction``.  Where the records cannot be
    asked nothing runs (503).  A result that cannot be recorded then is answered all the same while the lease is sure to
    last, and a repeat after that runs again.  A result that JSON of the return annotation cannot carry, or that is too
    large (``max_result_bytes``), is answered once; repeats get 409 without ``Retry-After``, since it has been done.

    Raises:
        ValueError: One of the times is no duration, or too short.
        TypeError: The function has no return annotation, is a generator, or *key* names none of its parameters.
    """
    times = {
        "keep_seconds": _seconds(ttl, "ttl", 1.0),
        "lease_seconds": _seconds(in_progress, "in_progress", 0.1),
        "wait_seconds": _seconds(wait, "wait", 0.0),
    }

    def decorate(function: Callable[..., Any]) -> Any:
        handler = _Handler(function, Naming(function, key, fingerprint, version), times, required)
        wrapped = handler.wrapped()
        put_mark(wrapped, Mark(handler.results, by_header=key is None, required=required))
        return wrapped

    return cast(Callable[[Function], Function], decorate)


class _Handler:
    """One decorated function."""

    def __init__(self, function: Callable[..., Any], naming: Naming, times: dict[str, float], required: bool) -> None:
        self.results = Results(function)
        self._function, self._naming, self._times, self._required = function, naming, times, required

    def wrapped(self) -> Callable[..., Any]:
        return self._async() if inspect.iscoroutinefunction(self._function) else self._plain()

    def _async(self) -> Callable[..., Any]:
        @wraps(self._function)
        async def call(*args: Any, **kwargs: Any) -> Any:
            begun = await self._begin(args, kwargs)
            if begun is None:
                return await self._function(*args, **kwargs)
            if not isinstance(begun, Attempt):
                return self._replay(begun, args, kwargs)
            result = await begun.run(partial(self._function, *args, **kwargs))
            try:
                packed = self._packed(result, args, kwargs)
            except BaseException:
                begun.leave()
                raise
            other = await begun.finish(packed)
            return result if other is None else self._replay(other, args, kwargs)

        return call

    def _plain(self) -> Callable[..., Any]:
        @wraps(self._function)
        def call(*args: Any, **kwargs: Any) -> Any:
            ask = current_ledger().ask
            begun = ask(self._begin(args, kwargs), wait_seconds=self._times["wait_seconds"])
            if begun is None:
                return self._function(*args, **kwargs)
            if not isinstance(begun, Attempt):
                return self._replay(begun, args, kwargs)
            try:
                with entered(begun.operation):
                    result = self._function(*args, **kwargs)
            except BaseException:
                ask(begun.release())
                raise
            try:
                packed = self._packed(result, args, kwargs)
            except BaseException:
                ask(_left(begun))
                raise
            other = ask(begun.finish(packed))
            return result if other is None else self._replay(other, args, kwargs)

        return call

    async def _begin(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Attempt | Done | None:
        named = await self._naming.read(args, kwargs, self._required)
        if named is None:
            return None
        times = {**self._times, "wait_seconds": _within_deadline(self._times["wait_seconds"])}
        self.results.check()
        begun = await current_ledger().begin(Wanted(self._naming.function, named.key, named.fingerprint, **times))
        if isinstance(begun, Running):
            raise _in_progress(named, begun.left_seconds, self._times["lease_seconds"])
        if isinstance(begun, Mismatch):
            raise _mismatch(named)
        return begun

    def _packed(self, result: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        most = current_ledger().backend.max_result_bytes
        packed = self.results.pack(result, self._naming.bind(args, kwargs).values(), most)
        if packed is None:
            OUTCOMES.inc(function=self._naming.function, outcome="unkept")
            logger.error("the result of %s cannot be kept: repeats will be told 409", self._naming.function)
            return UNKEPT
        return packed

    def _replay(self, done: Done, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        arguments = self._naming.bind(args, kwargs).values()
        call = current_call()
        if call is not None:
            call.answer_headers.append(REPLAYED)
        try:
            return self.results.unpack(done.result, arguments)
        except UnkeptError:
            if self._naming.takes_event(arguments):
                return None
            raise Problem(409, "this was done before, and its result was not kept") from None


async def _left(attempt: Attempt) -> None:
    """Leave *attempt* on its own loop."""
    attempt.leave()


def _in_progress(named: Named, left_seconds: float, lease_seconds: float) -> Exception:
    # The owner renews its lease, and mostly ends long before that does.
    after = min(left_seconds, _LONGEST_RETRY_SECONDS)
    if named.event_id is not None:
        # Each third of a lease it is renewed: less than half of it is left only where its owner is gone.
        after = after if left_seconds > lease_seconds / 2 else left_seconds
        return Retry("the event is being handled elsewhere", after_seconds=after, counts=False)
    return Problem(409, "the same call is being handled now", retry_after_seconds=after)


def _mismatch(named: Named) -> Exception:
    if named.event_id is not None:
        return Reject("another event has had this source and id")
    return Problem(422, "this key was used with another payload: a new one needs a new key")


def _within_deadline(wait_seconds: float) -> float:
    call = current_call()
    left = call.remaining_seconds() if call else None
    return wait_seconds if left is None else max(0.0, min(wait_seconds, left - _MARGIN_SECONDS))


def _seconds(duration: float | str, name: str, least: float) -> float:
    seconds = parse_duration(duration) if isinstance(duration, str) else float(duration)
    if not least <= seconds < float("inf"):
        raise ValueError(f"{name} must be at least {least:g} s")
    return seconds

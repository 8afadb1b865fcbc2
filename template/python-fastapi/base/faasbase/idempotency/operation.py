"""The operation that a handler carries out, and what makes an effect of it happen once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from .backend import Claim, RecordBackend
from .errors import OperationLostError, RecordsError, unavailable

Word = str | bytes | int
OnLoop = Callable[[Coroutine[Any, Any, Any]], Any]

_current: ContextVar[Operation | None] = ContextVar("faasbase.operation", default=None)


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """
    What stands behind one key of one handler, over all its runs.

    One run is the owner at a time, by a lease that it renews.  A run that was paused for longer than the lease may find
    itself beside its successor, so an effect happens once only where it looks at one of these: `id`, `fence`, `once`.
    """

    id: str
    """A UUID, the same in every run: for effects that know what they have done, such as another service's keys."""
    fence: int
    """Greater in each run than in all before: a store of effects that refuses a smaller one refuses the paused."""
    _claim: Claim = field(repr=False)
    _backend: RecordBackend = field(repr=False)
    _on_loop: OnLoop = field(repr=False)
    _steps: set[str] = field(default_factory=set, repr=False)

    async def check(self) -> None:
        """
        Make sure, on the server, that this run is the owner for one more lease: to be asked before what is dear.

        Raises:
            OperationLostError: It is not.
            Problem: 503, the records cannot be asked.
        """
        try:
            held = await self._backend.renew(self._claim, self.fence)
        except RecordsError as exc:
            raise unavailable() from exc
        if not held:
            raise OperationLostError

    async def once(self, step: str, script: str, keys: Sequence[str] = (), args: Sequence[Word] = ()) -> Any:
        """
        Run the Lua *script*, the effect, on the server of the records, and return its reply with strings as bytes.

        In one step with it the server checks that this run is the owner, and notes the reply under the name *step*: a
        later run gets that reply and the script is not run again, whatever became of this one.  That holds for as long
        as the server keeps the record.  *script* sees only its own KEYS and ARGV; Redis undoes nothing of one that
        fails in the middle, so it checks first and writes then.

        Raises:
            OperationLostError: Another run is the owner; nothing was done.
            EffectError: The script failed.
            Problem: 503, the records cannot be asked; a later run finds out what was done.
            ValueError: This run has used *step* before.
        """
        if step in self._steps:
            raise ValueError(f"the step {step} has been used in this run: give each its own name")
        self._steps.add(step)
        try:
            return await self._backend.once(self._claim, step, script, keys, args)
        except RecordsError as exc:
            raise unavailable() from exc

    @property
    def blocking(self) -> BlockingOperation:
        """The same for handlers that are a ``def``."""
        return BlockingOperation(self, self._on_loop)


class BlockingOperation:
    """Does from a thread what `Operation` does on the event loop."""

    def __init__(self, operation: Operation, on_loop: OnLoop) -> None:
        self._operation, self._on_loop = operation, on_loop

    def check(self) -> None:
        """Make sure that this run is the owner; see `Operation.check`."""
        self._on_loop(self._operation.check())

    def once(self, step: str, script: str, keys: Sequence[str] = (), args: Sequence[Word] = ()) -> Any:
        """Run an effect once; see `Operation.once`."""
        return self._on_loop(self._operation.once(step, script, keys, args))


def current_operation() -> Operation | None:
    """Return the operation being carried out, or None where none is, or a call without a key runs unrecorded."""
    return _current.get()


@contextmanager
def entered(operation: Operation) -> Iterator[None]:
    """Make *operation* the current one of this task or thread inside the block."""
    token = _current.set(operation)
    try:
        yield
    finally:
        _current.reset(token)

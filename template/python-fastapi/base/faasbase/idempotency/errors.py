"""
What can go wrong around `@idempotent`; none of it names a key.

    FaasError
    ├── RecordsError          the records cannot be asked now; callers get 503
    │   └── LeftAloneError    they have not answered, and are left alone for a while
    ├── EffectError           the server refused the script of `Operation.once` (`code`); nothing of it counts as done
    └── Problem
        └── OperationLostError  this run has outlived its lease and another one may be under way: 503
"""

from __future__ import annotations

from ..errors import FaasError, Problem

RETRY_AFTER_SECONDS = 2.0


class RecordsError(FaasError):
    """The records cannot be asked now; what was asked may have been done, unless they have *answered* with a no."""

    def __init__(self, reason: str, *, answered: bool = False) -> None:
        self.answered = answered
        super().__init__(reason)


class LeftAloneError(RecordsError):
    """The records have not answered before and were not asked: nothing was done."""

    def __init__(self) -> None:
        super().__init__("the records have not answered and are left alone for a while")


class EffectError(FaasError):
    """The server refused the script of an effect with the error *code* (``ERR``, ``OOM``, ``NOPERM``)."""

    def __init__(self, code: str) -> None:
        self.code = code
        super().__init__(f"the server refuses the effect's script with {code}")


class OperationLostError(Problem):
    """This run has lost its operation to another one, or can no longer prove that it has not."""

    def __init__(self) -> None:
        super().__init__(503, "another run may have taken over", retry_after_seconds=RETRY_AFTER_SECONDS)


def unavailable() -> Problem:
    """Return what callers are told while nothing can be recorded, and hence nothing runs."""
    detail = "nothing runs once only now: its records cannot be asked"
    return Problem(503, detail, retry_after_seconds=RETRY_AFTER_SECONDS)

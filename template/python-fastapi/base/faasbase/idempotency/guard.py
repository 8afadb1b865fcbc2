"""Keep calls from waiting for records that do not answer: they are refused at once, and one of them is the try."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..metrics import gauge
from ..resilience import Breaker, State
from .errors import LeftAloneError, RecordsError

logger = logging.getLogger(__name__)

FAILURES = 2
"""One after the other, until the records are left alone; calls that were waiting at the same time are one."""
OPEN_SECONDS = 1.0
"""Until the next try."""


class Guard:
    """
    Counts how often in a row the records have not answered, and tells each change of state in one log line.

    Records that answer with a refusal, as a full server does, are asked on: what is done they can still tell.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._breaker = Breaker(failures=FAILURES, open_seconds=OPEN_SECONDS, on_change=self._changed, clock=clock)
        self._up = gauge("faas_idempotent_records_up", "Whether records are asked: 0 while they do not answer.")
        self._writable = gauge("faas_idempotent_records_writable", "Whether operations are recorded: 0 while refused.")
        self._up.set(1)
        self._writable.set(1)
        self._clock, self._failed_at = clock, -1.0
        self._reason = ""
        self._trying = self._alone = self._refusing = False

    @contextmanager
    def asking(self) -> Iterator[None]:
        """
        Note what becomes of the one question that the block asks.

        Raises:
            LeftAloneError: The records have not answered, and another call is the try, or it is too early for one.
        """
        if self._trying or not self._breaker.allow():
            raise LeftAloneError
        is_try = self._trying = not self._breaker.closed
        began = self._clock()
        try:
            yield
        except RecordsError as exc:
            self._failed(exc, began)
            raise
        except BaseException:
            if is_try:
                # Whoever called has waited for long enough, and found no answer either.
                self._breaker.failed()
            raise
        else:
            self._breaker.succeeded()
        finally:
            if is_try:
                self._trying = False

    def recorded(self) -> None:
        """Note that a new operation was recorded."""
        if self._refusing:
            self._refusing = False
            self._writable.set(1)
            logger.info("operations are recorded again")

    def _failed(self, exc: RecordsError, began: float) -> None:
        if exc.answered:
            self._breaker.succeeded()
            self._refused(exc)
            return
        self._reason = str(exc)
        # A moment's stall fails everything that waits, and is no reason to refuse what comes after it.
        if began >= self._failed_at:
            self._failed_at = self._clock()
            self._breaker.failed()

    def _refused(self, exc: RecordsError) -> None:
        if not self._refusing:
            self._refusing = True
            self._writable.set(0)
            logger.warning("new operations are not recorded (%s), and do not run; repeats are answered", exc)

    def _changed(self, state: State) -> None:
        if state is State.OPEN and not self._alone:
            # A try that has failed opens it once more, which is no news.
            self._alone = True
            self._up.set(0)
            logger.warning("the records are left alone (%s): no operation runs until they answer", self._reason)
        elif state is State.CLOSED:
            self._alone = False
            self._up.set(1)
            logger.info("the records answer again")

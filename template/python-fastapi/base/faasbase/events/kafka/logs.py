"""The library's own lines in the log: what goes wrong, and that once in a while where it goes wrong all the time."""

from __future__ import annotations

import logging
import time

from aiokafka import errors

_LOGGERS = ("client", "cluster", "conn", "consumer.fetcher", "consumer.group_coordinator", "producer.sender")
_PAUSE_SECONDS = 10.0
_PASSING = (errors.GroupCoordinatorNotAvailableError, errors.GroupLoadInProgressError)
"""A cluster's first group has that while the topic of its offsets is made: told only where it goes on."""


class _Seldom(logging.Filter):
    """Lets one kind of line through every ten seconds: without a broker there are dozens a second."""

    def __init__(self) -> None:
        super().__init__()
        self._told_at: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether *record* is written; kinds are texts of the library's, hence few."""
        now, kind = time.monotonic(), str(record.msg)
        if record.args and isinstance(record.args, tuple) and isinstance(record.args[-1], _PASSING):
            self._told_at.setdefault(kind, now)
        if now - self._told_at.get(kind, -_PAUSE_SECONDS) < _PAUSE_SECONDS:
            return False
        self._told_at[kind] = now
        return True


def quieten() -> None:
    """Keep the library from filling the log, except where everything is wanted there."""
    if logging.getLogger().isEnabledFor(logging.DEBUG):
        return
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    for name in _LOGGERS:
        logger = logging.getLogger(f"aiokafka.{name}")
        if not any(isinstance(known, _Seldom) for known in logger.filters):
            logger.addFilter(_Seldom())

"""Where the records of a function are: ``IDEMPOTENCY_URL``, else the Redis of ``CACHE_URL``, else nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..backends import backend_of
from ..errors import HandlerError, SettingError
from .ledger import Ledger
from .marks import Mark

if TYPE_CHECKING:
    from ..settings import Settings

BACKENDS = {
    "memory": "faasbase.idempotency.memory:MemoryRecords",
    "redis": "faasbase.idempotency.redis:RedisRecords",
    "rediss": "faasbase.idempotency.redis:RedisRecords",
}


def open_ledger(settings: Settings) -> Ledger | None:
    """
    Return the ledger that *settings* name; nothing is connected yet.  None where they name none.

    Raises:
        SettingError: The scheme or an option of the URL is unknown.
        SecretMissingError: A secret that it names is not there.
        MissingExtraError: The extra for its scheme is not installed.
    """
    setting, url = _place(settings)
    if not url:
        return None
    backend: Any = backend_of(setting, url, BACKENDS)
    return Ledger(backend.from_url(setting, url), settings.qualified_name)


def require_place(settings: Settings, handlers: Sequence[Mark]) -> None:
    """
    Make sure, at start, that there is a place for the records of idempotent *handlers*, and that their results fit.

    Raises:
        SettingError: There is no place.
        HandlerError: A handler returns what cannot be recorded.
    """
    for handler in handlers:
        try:
            handler.results.check()
        except TypeError as exc:
            raise HandlerError(f"@idempotent: {exc}") from exc
    if handlers and not _place(settings)[1]:
        raise SettingError(
            "IDEMPOTENCY_URL",
            "must name the Redis that keeps the records of @idempotent (redis://…), as CACHE_URL does not; "
            "memory:// is for functions that never have a second replica",
        )


def _place(settings: Settings) -> tuple[str, str]:
    if settings.idempotency_url:
        return "IDEMPOTENCY_URL", settings.idempotency_url
    if settings.cache_url.partition(":")[0] in ("redis", "rediss"):
        return "CACHE_URL", settings.cache_url
    return "IDEMPOTENCY_URL", ""

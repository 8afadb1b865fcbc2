"""
Secrets as handles: files of the platform that are read when they are needed, and read again when they change.

    api_key = secret("shop-api-key")            # in handler.py: a missing one stops the start by name

    async def handle(order: Order) -> Receipt:
        headers = {"Authorization": f"Bearer {api_key.reveal().get_secret_value()}"}

Kubernetes replaces a secret by turning a symbolic link, agents of Vault by renaming a file: both are noticed at the
next use, for the price of one `stat`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NoReturn

from .errors import SecretMissingError
from .secret_files import Reading, UnusableError, read_secret, secret_name, still_holds

if TYPE_CHECKING:
    from pydantic import SecretStr

logger = logging.getLogger(__name__)

DEFAULT_DIRECTORY = Path("/var/openfaas/secrets")
GRACE_SECONDS = 5.0
"""How long a value outlives its file: whoever replaces a file badly leaves none for a moment."""

_MAX_KNOWN_VALUES = 256

_directory: Path | None = None
_known_values: tuple[str, ...] = ()
_known_values_lock = Lock()


class Secret:
    """
    A handle of the secret *name*, not its value: what prints, logs or copies it sees the name only.

    *directory* is where its file is, by default the one that the process uses.  After the file has gone, the last
    value is given for *grace_seconds* more.  *setting* is what names the secret, for messages.  Safe to use from any
    thread.

    Raises:
        ValueError: *name* is no name of a secret.
    """

    def __init__(
        self,
        name: str,
        directory: Path | None = None,
        *,
        setting: str | None = None,
        grace_seconds: float = GRACE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = secret_name(name)
        self.setting = setting
        self._given_directory = directory
        self._grace_seconds = grace_seconds
        self._clock = clock
        self._reading: Reading | None = None
        self._gone_at: float | None = None
        self._told = False

    def __repr__(self) -> str:
        return f"Secret({self.name!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret stays in its process: pass its name on")

    def reveal(self) -> SecretStr:
        """
        Return what the file holds now, without the newline at its end.

        Raises:
            SecretMissingError: There is no file, or nothing usable in it.  The log gets one line an outage.
        """
        try:
            return self._current()
        except SecretMissingError as exc:
            if not self._told:
                self._told = True
                logger.error("%s", exc)
            raise

    def refresh(self, used: SecretStr | None = None) -> bool:
        """
        Read the file now and tell whether its value differs from *used*, or else from what was last given.

        For whoever was refused with *used*: read again, and try once more if there is another one.
        """
        before = used or (self._reading and self._reading.value)
        try:
            return self._current(anew=True) != before
        except SecretMissingError:
            return False

    def check(self) -> None:
        """
        Make sure that there is a value, as `reveal`, but leave no line in the log: for starts, which leave one.

        Raises:
            SecretMissingError: There is none.
        """
        self._current()

    @property
    def directory(self) -> Path:
        """Where the secret's file is."""
        return self._given_directory or _directory or _directory_of_environment()

    def _current(self, *, anew: bool = False) -> SecretStr:
        reading, path = self._reading, f"{self.directory}/{self.name}"
        try:
            if anew or reading is None or not still_holds(reading, path):
                reading = read_secret(path)
        except OSError as exc:
            return self._outlived(exc.strerror or "it cannot be read")
        except UnusableError as exc:
            return self._outlived(str(exc))
        return self._found(reading)

    def _found(self, reading: Reading) -> SecretStr:
        before, self._reading, self._gone_at = self._reading, reading, None
        if before is not reading and (before is None or before.value != reading.value):
            hide(reading.value.get_secret_value())
            if before is not None:
                logger.info("secret %s has changed", self.name)
        if self._told:
            self._told = False
            logger.info("secret %s can be read again", self.name)
        return reading.value

    def _outlived(self, reason: str) -> SecretStr:
        """Return the last value while it may outlive its file."""
        now = self._clock()
        if self._gone_at is None:
            self._gone_at = now
        if self._reading is not None and now - self._gone_at < self._grace_seconds:
            return self._reading.value
        raise SecretMissingError(self.name, reason, self.setting) from None


def secret(name: str) -> Secret:
    """
    Return the handle of the secret *name*, for handlers to make once and use often.

    In a function that starts, a missing one stops the start.  Elsewhere, as in tests that import the handler, it is
    missed when it is used.

    Raises:
        ValueError: *name* is no name of a secret.
        SecretMissingError: The function starts, and there is none.
    """
    return required(Secret(name))


def required(handle: Secret) -> Secret:
    """Return *handle*; in a function that starts, it must be there now, as `secret` says."""
    if serving():
        handle.check()
    return handle


def serving() -> bool:
    """Tell whether this process is a function, which must have its secrets; scripts and tests may go without."""
    return _directory is not None


def use_directory(directory: Path | None) -> Path | None:
    """Look for secrets in *directory* from now on, None being the environment's; return the one used before."""
    global _directory
    before, _directory = _directory, directory
    return before


def hide(value: str) -> None:
    """Have *value* masked in all that leaves the process, from this moment on, also after it has been replaced."""
    global _known_values
    with _known_values_lock:
        others = [known for known in _known_values if known != value]
        _known_values = (value, *others[: _MAX_KNOWN_VALUES - 1])


def hidden_values() -> tuple[str, ...]:
    """Return the values that were read last, the last one first; the same object as long as none is added."""
    return _known_values


def _directory_of_environment() -> Path:
    # Scripts and tests have no settings; a function's process has, and says which by `use_directory`.
    return Path(os.environ.get("FAAS_SECRETS_DIR") or DEFAULT_DIRECTORY)

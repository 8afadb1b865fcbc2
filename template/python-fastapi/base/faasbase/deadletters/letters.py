"""Where dead letters are kept, as the commands see it, and how that is found."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from ..backends import backend_of
from ..errors import FaasError, SettingError
from ..events.dead_letters import DeadLetter
from ..settings import Settings

PLACES: Mapping[str, str] = {
    "kafka": "faasbase.deadletters.kafka:open_letters",
    "nats": "faasbase.deadletters.nats:open_letters",
}


class LetterError(FaasError):
    """Nothing has become of one letter; others may fare better."""


class PlaceError(FaasError):
    """The broker does not answer, or refuses everything."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A letter and where it is kept: a partition and offset, or a sequence in a stream."""

    letter: DeadLetter
    partition: int
    offset: int


class Letters(Protocol):
    """The dead letters in one place; *system* is its ``messaging.system``."""

    system: str
    total: int
    """How many letters there are, known once the first is found; foreign messages may be among them."""
    foreign: int
    """How many messages that are no letters were met since `found` was last begun."""

    async def open(self, *, writing: bool) -> None:
        """
        Connect, also to put letters back and to remove them where *writing*.

        Raises:
            SettingError: The settings are wrong, or nobody answers.
        """

    def found(self) -> AsyncGenerator[Stored, None]:
        """
        Yield the letters that are there now, one at a time, the oldest first.

        Raises:
            PlaceError: They cannot be read.
        """

    async def put_back(self, letter: DeadLetter, destination: str) -> None:
        """
        Send the message of *letter* to *destination* and return once the broker has it for good.

        Raises:
            LetterError: It cannot be put there.
            PlaceError: The broker does not answer; it may have the message all the same.
        """

    async def remove(self, stored: Stored) -> None:
        """
        Remove the letter for good.

        Raises:
            LetterError: It cannot be removed.
            PlaceError: The broker does not answer; the letter may be gone all the same.
        """

    async def close(self) -> None:
        """Disconnect."""


def letters_of(url: str, settings: Settings, timeout_seconds: float) -> Letters:
    """
    Return where the letters are: at *url*, else at ``DEADLETTER_URL``, else beside the source of ``EVENTS_URL``.

    Raises:
        SettingError: None of them says it, or a URL is wrong.
    """
    policy = settings.events
    given = [("--url", url), ("DEADLETTER_URL", policy.deadletter_url)]
    for setting, address in given:
        if address:
            letters: Letters = backend_of(setting, address, PLACES)(setting, address, settings, timeout_seconds)
            return letters
    if len(policy.pulled) != 1:
        raise SettingError("EVENTS_URL", "does not name the one broker whose dead letters are meant: say it with --url")
    source = policy.pulled[0]
    beside: Letters = backend_of("EVENTS_URL", source, PLACES)("EVENTS_URL", source, settings, timeout_seconds)
    return beside


@asynccontextmanager
async def answering(seconds: float) -> AsyncIterator[None]:
    """
    Bound what waits for a broker.

    Raises:
        PlaceError: It has taken more than *seconds*.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as exc:
        raise PlaceError(f"the broker has not answered within {seconds:g} s (--timeout)") from exc

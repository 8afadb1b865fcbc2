"""Dead letters of events that were pushed: kept at ``DEADLETTER_URL`` before the pusher is told that they are over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from ...backends import backend_of
from ...context import current_call, new_call_id
from ...errors import SettingError
from ...settings import Settings
from ..dead_letters import DeadLetter, dead_letter
from ..envelope import Envelope
from ..outcomes import Outcome, logger
from ..outgoing import PublishError, TooLargeError
from ..records import Record
from ..telemetry import DEAD_LETTERS

KEEPERS: Mapping[str, str] = {
    "http": "faasbase.events.http.gateway:open_dead_letters",
    "https": "faasbase.events.http.gateway:open_dead_letters",
    "kafka": "faasbase.events.kafka:open_dead_letters",
    "memory": "faasbase.events.memory:open_dead_letters",
    "nats": "faasbase.events.nats:open_dead_letters",
}

UNKEPT = Outcome("failed", "the event cannot be given up now: nobody keeps its dead letter", "PublishError")


class Keeper(Protocol):
    """Keeps dead letters in one place."""

    async def open(self) -> None:
        """
        Connect, and make sure that letters can be kept, within the start's deadline.

        Raises:
            SettingError: The settings are wrong, or nobody answers.
        """

    async def send(self, letter: DeadLetter) -> None:
        """
        Keep *letter*; once this returns it is safe.

        Raises:
            TooLargeError: It never will be, as it is.
            PublishError: It is not sure to be.
        """

    async def close(self) -> None:
        """Disconnect."""


@dataclass(slots=True)
class _Active:
    keeper: Keeper
    timeout_seconds: float


_active: list[_Active] = []


@asynccontextmanager
async def opened_dead_letters(settings: Settings) -> AsyncIterator[None]:
    """
    Open what ``DEADLETTER_URL`` names, have the letters of pushed events kept there, and close it at the end.

    Raises:
        SettingError: The URL is wrong, or nobody answers there within ``EVENTS_START_TIMEOUT``.
    """
    policy = settings.events
    keeper: Keeper = backend_of("DEADLETTER_URL", policy.deadletter_url, KEEPERS)(policy.deadletter_url, settings)
    active = _Active(keeper, policy.publish_timeout)
    try:
        await _open(keeper, policy.start_timeout)
        _active.append(active)
        yield
    finally:
        if active in _active:
            _active.remove(active)
        await keeper.close()


async def keep_letter(record: Record, envelope: Envelope, outcome: Outcome, function: str) -> Outcome:
    """Keep the letter of *record* and return *outcome*, or `UNKEPT` where that fails; *outcome* alone without a URL."""
    if not _active:
        return outcome
    active = _active[-1]
    name = record.position or _name(envelope)
    letter = dead_letter(record, outcome, function, position=name)
    try:
        async with asyncio.timeout(active.timeout_seconds):
            await _send(active.keeper, letter)
    except (TimeoutError, PublishError) as exc:
        logger.error("dead letter of %s cannot be kept: %s", name, exc or type(exc).__name__)
        return UNKEPT
    # The topic is the pusher's word, and as a label each new one would be a series of its own.
    DEAD_LETTERS.inc(destination="http", error=outcome.error or outcome.kind)
    fields = {"dead_letter": letter.id, "error_type": outcome.error}
    logger.error("%s is a dead letter: %s", name, outcome.reason, extra=fields)
    return outcome


async def _send(keeper: Keeper, letter: DeadLetter) -> None:
    try:
        await keeper.send(letter)
    except TooLargeError:
        # As it is it never could be kept, and its pusher would send it for ever.
        await keeper.send(letter.shortened())


def _name(envelope: Envelope) -> str:
    """Return what tells the event from others; for what is no event, the call that has brought it."""
    source, event_id = (envelope.attributes.get(name) for name in ("source", "id"))
    if isinstance(source, str) and isinstance(event_id, str) and event_id:
        return f"{source}#{event_id}"
    call = current_call()
    return f"call/{call.call_id if call else new_call_id()}"


async def _open(keeper: Keeper, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await keeper.open()
    except TimeoutError as exc:
        reason = f"nobody there has answered within {seconds:g} s (EVENTS_START_TIMEOUT)"
        raise SettingError("DEADLETTER_URL", reason) from exc

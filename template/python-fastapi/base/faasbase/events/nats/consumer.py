"""What must be there before events can be fetched from NATS: a stream, and the consumer that all replicas share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    ConsumerInfo,
    RetentionPolicy,
    StorageType,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError
from nats.js.manager import JetStreamManager

from ...errors import SettingError
from .connection import NatsConnection
from .place import LettersPlace, NatsPlace

ACK_WAIT_SECONDS = 30.0
_ASK_SECONDS = 5.0
_LETTERS_WINDOW_SECONDS = 120.0


async def manager(connection: NatsConnection) -> JetStreamManager:
    """Return what asks JetStream, over the connection that there is now."""
    return JetStreamManager(await connection.client(), timeout=_ASK_SECONDS)


async def stream_of(connection: NatsConnection, name: str) -> StreamInfo:
    """
    Return the stream *name* of the connection's place.

    Raises:
        SettingError: There is none, or it may not be seen.
    """
    place = connection.place
    try:
        return await (await manager(connection)).stream_info(name)
    except NotFoundError:
        raise SettingError(place.setting, f"there is no stream {name} at {place.shown}") from None
    except (NatsError, TimeoutError) as exc:
        raise SettingError(place.setting, f"the stream {name} at {place.shown} {_why(exc, connection)}") from None


async def agreed_consumer(connection: NatsConnection, max_ack_pending: int) -> ConsumerInfo:
    """
    Return the consumer of the connection's place, made where it is missing and bounded by *max_ack_pending*.

    Raises:
        SettingError: It is another kind of consumer, or it cannot be made.
    """
    place = connection.place
    try:
        asking = await manager(connection)
        try:
            info: ConsumerInfo = await asking.consumer_info(place.name, place.durable)
        except NotFoundError:
            return await asking.add_consumer(place.name, _wanted(place, max_ack_pending))
        if differing := "; ".join(_differing(info.config, place)):
            reason = f"the consumer {place.durable} of the stream {place.name} does not fit: {differing}"
            raise SettingError(place.setting, reason)
        if info.config.max_ack_pending == max_ack_pending:
            return info
        bounded: ConsumerConfig = info.config.evolve(max_ack_pending=max_ack_pending)
        return await asking.add_consumer(place.name, bounded)
    except (NatsError, TimeoutError) as exc:
        reason = f"the consumer {place.durable} of the stream {place.name} {_why(exc, connection)}"
        raise SettingError(place.setting, reason) from None


async def make_letters_stream(connection: NatsConnection, letters: LettersPlace, replicas: int | None) -> None:
    """
    Make the stream of *letters* where it is missing, with as many *replicas*.

    A letter that comes again, later than the server remembers ids, takes the place of the older one.

    Raises:
        SettingError: It cannot be made, takes none of the letters' subjects, or would not keep what it takes.
    """
    place, subjects = connection.place, f"{letters.subject}.>"
    asking = await manager(connection)
    config = StreamConfig(
        name=letters.stream,
        subjects=[subjects],
        storage=StorageType.FILE,
        num_replicas=replicas,
        max_msgs_per_subject=1,
        duplicate_window=_LETTERS_WINDOW_SECONDS,
        allow_direct=True,
    )
    try:
        try:
            info = await asking.stream_info(letters.stream)
        except NotFoundError:
            info = await asking.add_stream(config)
    except (NatsError, TimeoutError) as exc:
        reason = f"the stream {letters.stream} at {place.shown}, for dead letters, {_why(exc, connection)}"
        raise SettingError(place.setting, reason) from None
    if lacking := "; ".join(_lacking(info.config, subjects)):
        raise SettingError(place.setting, f"the stream {letters.stream}, for dead letters, does not fit: {lacking}")


async def check_subject(connection: NatsConnection, subject: str) -> None:
    """
    Make sure that a stream takes what is sent to *subject*.

    Raises:
        SettingError: None does, or nobody tells.
    """
    place = connection.place
    try:
        await (await manager(connection)).find_stream_name_by_subject(subject)
    except NotFoundError:
        raise SettingError(place.setting, f"no stream at {place.shown} takes the subject {subject}") from None
    except (NatsError, TimeoutError) as exc:
        raise SettingError(place.setting, f"the subject {subject} at {place.shown} {_why(exc, connection)}") from None


def _wanted(place: NatsPlace, max_ack_pending: int) -> ConsumerConfig:
    return ConsumerConfig(
        name=place.durable,
        durable_name=place.durable,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_SECONDS,
        # Attempts are ours to count: a message that the server gives up by itself is in no dead letter.
        max_deliver=-1,
        max_ack_pending=max_ack_pending,
        filter_subject=place.subject or None,
    )


def _differing(config: ConsumerConfig, place: NatsPlace) -> Iterator[str]:
    """Tell in what a consumer that somebody else has made would lose events, or bring others."""
    filters = config.filter_subjects or ([config.filter_subject] if config.filter_subject else [])
    checks: list[tuple[bool, Callable[[], str]]] = [
        (config.deliver_subject is None, lambda: "it pushes, and must be a pull consumer"),
        (config.ack_policy == AckPolicy.EXPLICIT, lambda: f"its ack policy is {config.ack_policy}, not explicit"),
        (config.max_deliver in (-1, None), lambda: f"its max deliver is {config.max_deliver}, not -1"),
        (
            filters == ([place.subject] if place.subject else []),
            lambda: f"it takes {', '.join(filters) or 'everything'}",
        ),
        (not config.backoff, lambda: "it has a back-off of its own"),
        (not config.headers_only, lambda: "it brings headers only"),
        (not config.inactive_threshold, lambda: "it goes, and its position with it, when nobody fetches for a while"),
    ]
    return (reason() for fits, reason in checks if not fits)


def _lacking(config: StreamConfig, subjects: str) -> Iterator[str]:
    """Tell in what a stream that somebody else has made would lose letters, or refuse them for ever."""
    checks = [
        (subjects in (config.subjects or []), f"it must take the subjects {subjects}"),
        (config.retention in (None, RetentionPolicy.LIMITS), "its retention must be by limits"),
        (not config.no_ack, "it must acknowledge what it has (no_ack)"),
        (not config.sealed and config.mirror is None, "it takes nothing: it is sealed, or a mirror"),
        (not config.discard_new_per_subject, "it must let a letter replace an older one (discard_new_per_subject)"),
    ]
    return (reason for fits, reason in checks if not fits)


def _why(exc: Exception, connection: NatsConnection) -> str:
    if isinstance(exc, NoRespondersError | ServiceUnavailableError):
        return "cannot be asked for: JetStream is not there"
    if isinstance(exc, APIError):
        return f"is refused: {exc.description} ({exc.err_code})"
    if connection.forbidden:
        return f"is refused: {connection.forbidden}"
    return f"cannot be asked for: {exc or type(exc).__name__}"

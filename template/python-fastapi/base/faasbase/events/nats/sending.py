"""What is sent to NATS JetStream: each message until a stream has it, over as many connections as that takes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from typing import Any

from nats.errors import BadHeaderError, BadSubjectError
from nats.errors import Error as NatsError
from nats.js.client import JetStreamContext
from nats.js.errors import APIError, NoStreamResponseError

from ...resilience import backoff
from ...settings import Settings
from ..dead_letters import DeadLetter
from ..outgoing import Outgoing, PublishError, TooLargeError
from .client import NatsClient
from .connection import NatsConnection
from .consumer import check_subject, make_letters_stream, stream_of
from .messages import MESSAGE_ID, headers_of
from .place import LettersPlace, NatsPlace, is_subject

_ANSWER_SECONDS = 2.5
_BASE_SECONDS, _CAP_SECONDS = 0.1, 1.0
_UNTAKEN_TRIES = 4
"""A stream whose leader has just gone answers to nobody for a moment."""
_NO_NAME = re.compile(r"[^!#$%&'*+\-.^_`|~0-9A-Za-z]")
_TOO_LARGE = 10054
"""JetStream's code for a message above its stream's ``max_msg_size``."""
_HEADER_BYTES = 4
"""What a header takes beside its name and value."""


class NatsPublisher:
    """Publishes to the subject of *place*; repeats carry one message id, by which the server drops them."""

    system = "nats"

    def __init__(self, place: NatsPlace, settings: Settings) -> None:
        self.destination = place.name
        self._connection = NatsConnection(place, settings.function_name)

    async def open(self) -> None:
        """
        Connect, and make sure that a stream takes the subject.

        Raises:
            SettingError: None does, or the server refuses who asks.
        """
        await self._connection.open()
        await check_subject(self._connection, self.destination)

    async def send(self, message: Outgoing, destination: str) -> None:
        """
        Send *message* to the subject *destination*; whoever calls bounds how long that is tried.

        Raises:
            TooLargeError: It has more than the server takes.
            PublishError: No stream takes it.
        """
        if not is_subject(destination):
            raise PublishError(f"{destination} is no subject of NATS")
        # NATS has no place of its own for a key.
        message = message.with_key()
        await _keep(self._connection, destination, message.body(), headers_of(message))

    async def close(self) -> None:
        """Disconnect."""
        await self._connection.close()


class NatsLetters:
    """
    Keeps dead letters in a stream of their own, over the connection of a source of *beside*, or one of its own.

    A letter has a subject of its own: one that comes again replaces the older one.  Its message id is that of one
    death, since the server remembers ids longer than it may keep what had them.
    """

    def __init__(self, letters: LettersPlace, settings: Settings, beside: NatsConnection | None = None) -> None:
        self._letters, self._is_beside = letters, beside is not None
        self._connection = beside or NatsConnection(letters.place, f"{settings.function_name} dead letters")

    async def open(self) -> None:
        """
        Make the stream where it is missing.

        Raises:
            SettingError: It cannot be made, or is another kind of stream.
        """
        replicas = None
        if self._is_beside:
            replicas = (await stream_of(self._connection, self._letters.place.name)).config.num_replicas
        else:
            await self._connection.open()
        await make_letters_stream(self._connection, self._letters, replicas)

    async def send(self, letter: DeadLetter) -> None:
        """
        Keep *letter*.

        Raises:
            TooLargeError: It has more than the server takes.
            PublishError: The stream does not take it.
        """
        headers = _Pairs([*_sendable(letter.all_headers()), (MESSAGE_ID, f"{letter.id}#{letter.died_at:.6f}")])
        await _keep(self._connection, f"{self._letters.subject}.{letter.id}", letter.content, headers)

    async def close(self) -> None:
        """Disconnect, where the connection is ours."""
        if not self._is_beside:
            await self._connection.close()


class _Pairs(dict[str, str]):
    """Headers of which several may have one name, as a message may have them and the library's own type may not."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        super().__init__(pairs)
        self._pairs = pairs

    def items(self) -> Any:
        return self._pairs


def _sendable(headers: Iterable[tuple[str, bytes]]) -> Iterable[tuple[str, str]]:
    """Return *headers* as the library takes them: a message is no less dead for having odd ones."""
    for name, value in headers:
        # Of the stream that it came from, the message had its own id, time to live and the like.
        if not name.lower().startswith("nats-") and name:
            yield _NO_NAME.sub("_", name), value.decode("utf-8", "replace")


async def _keep(connection: NatsConnection, subject: str, content: bytes, headers: dict[str, str]) -> None:
    tries = 0
    while True:
        client = await connection.client()
        _check_size(client, content, headers)
        try:
            await JetStreamContext(client).publish(subject, content, timeout=_ANSWER_SECONDS, headers=headers)
            return
        except NoStreamResponseError:
            if tries >= _UNTAKEN_TRIES:
                raise PublishError(f"no stream takes the subject {subject}") from None
        except APIError as exc:
            kind = TooLargeError if exc.err_code == _TOO_LARGE else PublishError
            raise kind(f"NATS refuses the message: {exc.description} ({exc.err_code})") from None
        except (BadSubjectError, BadHeaderError) as exc:
            raise PublishError(f"the message cannot be sent: {exc}") from None
        except (NatsError, OSError, TimeoutError) as exc:
            if connection.forbidden and subject in connection.forbidden:
                raise PublishError(f"NATS refuses the message: {connection.forbidden}") from exc
        await asyncio.sleep(backoff(tries, _BASE_SECONDS, _CAP_SECONDS))
        tries += 1


def _check_size(client: NatsClient, content: bytes, headers: dict[str, str]) -> None:
    """Refuse what the server would cut the connection for."""
    size = sum(len(name) + len(value.encode("utf-8")) + _HEADER_BYTES for name, value in headers.items())
    if size + len(content) + len("NATS/1.0\r\n\r\n") > client.max_payload:
        raise TooLargeError(f"the message has more than the {client.max_payload} bytes that NATS takes")

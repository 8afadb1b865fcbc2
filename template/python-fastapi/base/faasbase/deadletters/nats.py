"""Dead letters in a stream of NATS, read one by one by their sequence: that leaves no consumer behind."""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ..errors import FaasError, SettingError, missing_extra
from ..events.dead_letters import DeadLetter, read_letter, redriven_headers
from ..settings import Settings
from .letters import LetterError, PlaceError, Stored, answering

try:
    from nats import errors
except ModuleNotFoundError as exc:
    raise missing_extra(exc, "nats", "nats") from exc

from nats.js import JetStreamContext
from nats.js import errors as stream_errors

from ..events.nats.connection import NatsConnection
from ..events.nats.place import is_subject, letters_place

_ORDERS = "nats-"
"""What the names of headers begin with that the server obeys."""
_MESSAGE_ID = "Nats-Msg-Id"
_NOT_TAKEN = (
    errors.BadHeaderError,
    errors.BadSubjectError,
    errors.MaxPayloadError,
    stream_errors.APIError,
    stream_errors.NoStreamResponseError,
)


def open_letters(setting: str, url: str, settings: Settings, timeout_seconds: float) -> NatsLetters:
    """
    Return the letters in the stream of *url*, or in the one beside the source where *setting* is ``EVENTS_URL``.

    Raises:
        SettingError: The URL or what belongs to it cannot be used.
    """
    place = letters_place(setting, url, settings)
    return NatsLetters(NatsConnection(place.place, "deadletters"), place.stream, timeout_seconds)


@dataclass(frozen=True, slots=True)
class Message:
    """A message as a stream keeps it."""

    sequence: int
    content: bytes
    headers: tuple[tuple[str, bytes], ...]


class NatsLetters:
    """The dead letters in *stream*, on whatever subjects; see `Letters`."""

    system = "nats"

    def __init__(self, connection: NatsConnection, stream: str, timeout_seconds: float) -> None:
        self._connection, self._stream, self._seconds = connection, stream, timeout_seconds
        self._setting = connection.place.setting
        self._subjects: tuple[str, ...] = ()
        self.total = 0
        self.foreign = 0

    async def open(self, *, writing: bool) -> None:
        """Connect and make sure that the stream is there."""
        shown = self._connection.place.shown
        try:
            async with asyncio.timeout(self._seconds):
                await self._connection.open()
                info = await (await self._streams()).stream_info(self._stream)
        except stream_errors.NotFoundError as exc:
            raise SettingError(self._setting, f"there is no stream {self._stream} at {shown}") from exc
        except TimeoutError as exc:
            raise SettingError(
                self._setting, f"no NATS has answered at {shown} within {self._seconds:g} s (--timeout)"
            ) from exc
        except errors.Error as exc:
            raise SettingError(self._setting, f"NATS at {shown} cannot be asked: {type(exc).__name__}") from exc
        self._subjects = tuple(info.config.subjects or ())

    async def found(self) -> AsyncGenerator[Stored, None]:
        """Yield the letters up to where the stream ends now."""
        async with _asking(self._seconds):
            state = (await (await self._streams()).stream_info(self._stream)).state
        self.total, self.foreign, sequence = state.messages, 0, state.first_seq
        while (message := await self._next(sequence)) and message.sequence <= state.last_seq:
            sequence = message.sequence + 1
            try:
                letter = read_letter(message.content, message.headers)
            except ValueError:
                self.foreign += 1
            else:
                yield Stored(letter, 0, message.sequence)

    async def put_back(self, letter: DeadLetter, destination: str) -> None:
        """Publish the message; one that is put back twice is kept once, where the stream still knows its id."""
        # Subjects that begin with $ are orders to the server, which a letter must not give.
        if destination.startswith("$") or not is_subject(destination):
            raise LetterError("it has no subject that it could go to: say with --to where it goes")
        if any(_matches(destination, pattern) for pattern in self._subjects):
            raise LetterError(f"{destination} leads to where it lies: say with --to where it goes")
        headers = _Pairs(
            (name, (value or b"").decode("utf-8", "replace"))
            for name, value in redriven_headers(letter)
            if not name.lower().startswith(_ORDERS)
        )
        headers.add(_MESSAGE_ID, f"{letter.id}.{letter.redrives + 1}")
        async with _asking(self._seconds, LetterError):
            streams = await self._streams()
            await streams.publish(destination, letter.content, timeout=self._seconds, headers=headers)

    async def remove(self, stored: Stored) -> None:
        """Delete the message, without the costs of overwriting it; one that has gone already is no failure."""
        told = await self._request("DELETE", {"seq": stored.offset, "no_erase": True})
        if "error" in told and await self._get({"seq": stored.offset}) is not None:
            raise LetterError(f"it cannot be removed: {told['error'].get('description')}")

    async def close(self) -> None:
        """Disconnect, within a moment."""
        await self._connection.close()

    async def _streams(self) -> JetStreamContext:
        return (await self._connection.client()).jetstream(timeout=self._seconds)

    async def _next(self, sequence: int) -> Message | None:
        """Return the first message from *sequence* on, or None where there is none."""
        return await self._get({"seq": max(sequence, 1), "next_by_subj": ">"})

    async def _get(self, asked: dict[str, Any]) -> Message | None:
        told = await self._request("GET", asked)
        if error := told.get("error"):
            if error.get("code") == 404:
                return None
            raise PlaceError(f"NATS gives no message: {error.get('description')}")
        message = told["message"]
        headers = tuple(_headers(b64decode(message.get("hdrs", ""))))
        return Message(message["seq"], b64decode(message.get("data", "")), headers)

    async def _request(self, what: str, asked: dict[str, Any]) -> dict[str, Any]:
        # The library's own way reads headers as those of electronic mail, and has no word for `no_erase`.
        async with _asking(self._seconds):
            client = await self._connection.client()
            subject = f"$JS.API.STREAM.MSG.{what}.{self._stream}"
            answer = await client.request(subject, json.dumps(asked).encode(), timeout=self._seconds)
        told: dict[str, Any] = json.loads(answer.data)
        return told


class _Pairs(dict[str, str]):
    """Headers as the library sends them, of which several may have one name."""

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self._pairs = list(pairs)
        super().__init__(self._pairs)

    def add(self, name: str, value: str) -> None:
        self._pairs.append((name, value))

    def items(self) -> Any:
        return self._pairs


@asynccontextmanager
async def _asking(seconds: float, refusal: type[FaasError] = PlaceError) -> AsyncIterator[None]:
    """Bound what waits for NATS, and tell the library's errors as ours; what is only not taken is a *refusal*."""
    try:
        async with answering(seconds):
            yield
    except _NOT_TAKEN as exc:
        raise refusal(f"NATS does not take it: {type(exc).__name__}") from exc
    except errors.Error as exc:
        raise PlaceError(f"NATS does not answer: {type(exc).__name__}") from exc


def _headers(raw: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the headers of a block whose first line is the protocol's version."""
    for line in raw.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        if colon:
            yield name.strip().decode("ascii", "replace"), value.strip()


def _matches(subject: str, pattern: str) -> bool:
    tokens, wanted = subject.split("."), pattern.split(".")
    if wanted[-1] == ">":
        return len(tokens) >= len(wanted) and _matches(".".join(tokens[: len(wanted) - 1]), ".".join(wanted[:-1]))
    return len(tokens) == len(wanted) and all(want in ("*", token) for token, want in zip(tokens, wanted, strict=True))

"""
One request and its answer, on a connection of its own to an address that was checked.

The parser is h11, which is strict and comes with uvicorn; a client library would bring its own limits for headers, none
for interim answers, and its own mind about proxies, cookies and redirects.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from socket import AI_NUMERICHOST
from typing import Any

import h11

from .addresses import Address
from .answers import Head
from .errors import BadAnswerError, TooSlowError, UnreachableError
from .policy import FetchPolicy
from .urls import Target

_READ_BYTES = 16 * 1024
_MAX_INTERIM = 8
_MAX_TRIED = 4
"""Addresses of one name that a fetch tries."""


class Deadline:
    """When a fetch is over, on the clock of the event loop, and the time for each of its steps."""

    def __init__(self, seconds: float) -> None:
        self._end = asyncio.get_running_loop().time() + seconds

    @asynccontextmanager
    async def step(self, name: str, seconds: float) -> AsyncIterator[None]:
        """Give the body *seconds*, or what is left; raises `TooSlowError`, which names the step in the log."""
        try:
            async with asyncio.timeout_at(min(self._end, asyncio.get_running_loop().time() + seconds)):
                yield
        except TimeoutError:
            raise TooSlowError(name) from None


class Exchange:
    """A connection on which one request is sent and one answer is read."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, policy: FetchPolicy, deadline: Deadline
    ) -> None:
        self._reader, self._writer, self._policy, self._deadline = reader, writer, policy, deadline
        self.peer = str(writer.get_extra_info("peername", ("",))[0])
        """The address that was connected to."""
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=policy.max_header_bytes)

    async def send(self, method: str, target: Target, headers: Iterable[tuple[str, str]]) -> Head:
        """
        Send a request without a body and return the head of its answer.

        Raises:
            ValueError: A header of the caller's own cannot be sent.
            FetchError: There is no answer, or none that can be used.
        """
        try:
            request = h11.Request(method=method, target=target.path, headers=list(headers))
            data = self._http.send(request) or b""
            data += self._http.send(h11.EndOfMessage()) or b""
        except h11.LocalProtocolError:
            # h11's own message repeats the header, which may be a secret.
            raise ValueError("a header has a name or value that cannot be sent") from None
        async with self._step("sending"):
            self._writer.write(data)
            await self._writer.drain()
        return self._checked(await self._head(), target)

    async def read(self) -> bytes | None:
        """Return the next bytes of the body, chunked transfer apart, or None where it has ended."""
        event = await self._event()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if not isinstance(event, h11.EndOfMessage):
            raise BadAnswerError("it is cut short")
        return None

    async def _head(self) -> h11.Response:
        for _ in range(_MAX_INTERIM):
            event = await self._event()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse) or event.status_code == 101:
                raise BadAnswerError("no answer to the request")
        raise BadAnswerError("too many interim answers")

    def _checked(self, response: h11.Response, target: Target) -> Head:
        if len(response.headers) > self._policy.max_headers:
            raise BadAnswerError(f"more than {self._policy.max_headers} headers")
        joined: dict[str, str] = {}
        for name, value in ((n.decode("ascii"), v.decode("latin-1")) for n, v in response.headers):
            joined[name] = f"{joined[name]}, {value}" if name in joined else value
        return Head(response.status_code, joined, target.url)

    async def _event(self) -> Any:
        """Return h11's next event; what it has to keep for that stays below `max_header_bytes`."""
        while True:
            with _protocol_errors():
                event = self._http.next_event()
            if event is not h11.NEED_DATA:
                return event
            async with self._step("reading"):
                data = await self._reader.read(_READ_BYTES)
            with _protocol_errors():
                self._http.receive_data(data)

    @asynccontextmanager
    async def _step(self, name: str) -> AsyncIterator[None]:
        async with self._deadline.step(name, self._policy.read_seconds):
            try:
                yield
            except (OSError, EOFError) as exc:
                if isinstance(exc, TimeoutError):
                    raise
                raise UnreachableError(f"the connection broke ({_name(exc)})") from None


@asynccontextmanager
async def connected(
    target: Target,
    addresses: Sequence[Address],
    context: ssl.SSLContext | None,
    policy: FetchPolicy,
    deadline: Deadline,
) -> AsyncIterator[Exchange]:
    """
    Connect to the first of *addresses* that takes it; the certificate must be for the host's name all the same.

    Raises:
        UnreachableError: None does.
        TooSlowError: There was no time left to try another.
    """
    reader, writer = await _connect(target, addresses[:_MAX_TRIED], context, policy, deadline)
    try:
        yield Exchange(reader, writer, policy, deadline)
    finally:
        # There is nothing left to say, and a polite close would wait for the other side.
        writer.transport.abort()


async def _connect(
    target: Target,
    addresses: Sequence[Address],
    context: ssl.SSLContext | None,
    policy: FetchPolicy,
    deadline: Deadline,
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    failure: UnreachableError | TooSlowError = UnreachableError("the name has no address")
    for address in addresses:
        try:
            async with deadline.step("connecting", policy.connect_seconds / len(addresses)):
                return await asyncio.open_connection(
                    str(address),
                    target.port,
                    flags=AI_NUMERICHOST,
                    limit=_READ_BYTES,
                    ssl=context,
                    server_hostname=target.host if context else None,
                )
        except TooSlowError as exc:
            failure = exc
        except OSError as exc:
            failure = UnreachableError(f"{address} port {target.port}: {_name(exc)}")
    raise failure


@contextmanager
def _protocol_errors() -> Iterator[None]:
    try:
        yield
    except h11.RemoteProtocolError as exc:
        large = exc.error_status_hint == 431
        raise BadAnswerError("headers that are too large" if large else "it is no HTTP, or cut short") from None


def _name(exc: BaseException) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return f"certificate: {exc.verify_message}"
    return getattr(exc, "strerror", None) or type(exc).__name__

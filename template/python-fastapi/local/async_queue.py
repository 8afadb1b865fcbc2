"""Asynchronous calls: a bounded queue in memory, one worker for each function, no retries (as OpenFaaS CE has it)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import httpx2

from answers import PROBLEM_TYPE, Headers
from calls import Call, passed_on, value_of
from deployments import Deployment, UnavailableError
from invocation import invoke, unavailable_body

LONGEST_QUEUE = 100
LARGEST_QUEUE_BYTES = 64 * 1024 * 1024
"""Bodies that wait, of all functions together."""
CALL_SECONDS = 300.0
"""How long one call may take, the longest that CE's queue worker waits."""
CALLBACK_SECONDS = 30.0


class QueueError(Exception):
    """A call cannot be queued."""


@dataclass(frozen=True)
class QueuedCall:
    """A call that waits for its turn."""

    call: Call
    body: bytes
    callback_url: str | None


class Bytes(httpx2.AsyncByteStream):
    """A body that is there already."""

    def __init__(self, body: bytes) -> None:
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield it, if there is any."""
        if self._body:
            yield self._body


class AsyncQueue:
    """The queues of all functions."""

    def __init__(self, deployments: Mapping[str, Deployment], report: Callable[[str], None]) -> None:
        self._deployments = deployments
        self._report = report
        self._queues: dict[str, asyncio.Queue[QueuedCall]] = {
            name: asyncio.Queue(LONGEST_QUEUE) for name in deployments
        }
        self._bytes = 0
        self._stopping = asyncio.Event()

    def put(self, name: str, queued: QueuedCall) -> None:
        """Queue a call for the function *name*; raise `QueueError` when too much waits already."""
        if self._bytes + len(queued.body) > LARGEST_QUEUE_BYTES:
            raise QueueError(f"{self._bytes} bytes wait, of at most {LARGEST_QUEUE_BYTES}")
        try:
            self._queues[name].put_nowait(queued)
        except asyncio.QueueFull:
            raise QueueError(f"{LONGEST_QUEUE} calls to {name} wait already") from None
        self._bytes += len(queued.body)

    async def run(self) -> None:
        """Work until `stop`: the calls that run then are finished, and those that wait are dropped and counted."""
        # Callbacks mostly lead to this machine, where a proxy of the environment does not.
        async with (
            httpx2.AsyncClient(timeout=CALLBACK_SECONDS, trust_env=False) as client,
            asyncio.TaskGroup() as workers,
        ):
            for name, queue in self._queues.items():
                workers.create_task(self._work(self._deployments[name], queue, client))

    def stop(self) -> None:
        """Take no further call from the queues."""
        self._stopping.set()

    async def _work(self, deployment: Deployment, queue: asyncio.Queue[QueuedCall], client: httpx2.AsyncClient) -> None:
        while (queued := await self._next(queue)) is not None:
            await self._process(deployment, queued, client)
            self._bytes -= len(queued.body)
        if queue.qsize():
            self._report(f"{deployment.function.name}: {queue.qsize()} queued calls are dropped")

    async def _next(self, queue: asyncio.Queue[QueuedCall]) -> QueuedCall | None:
        getting, stopping = (
            asyncio.create_task(queue.get()),
            asyncio.create_task(self._stopping.wait()),
        )
        try:
            await asyncio.wait({getting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            return getting.result() if getting.done() and not stopping.done() else None
        finally:
            getting.cancel()
            stopping.cancel()
            await asyncio.gather(getting, stopping, return_exceptions=True)

    async def _process(self, deployment: Deployment, queued: QueuedCall, client: httpx2.AsyncClient) -> None:
        name = deployment.function.name
        started = time.monotonic()
        try:
            async with asyncio.timeout(CALL_SECONDS):
                response = await invoke(deployment, _stamped_again(queued.call), Bytes(queued.body))
        except (UnavailableError, TimeoutError, httpx2.TransportError) as error:
            reason = str(error) or type(error).__name__
            self._report(f"{name}: an asynchronous call failed: {reason}")
            response = _failed(reason, queued.call)
        try:
            with suppress(TimeoutError, httpx2.TransportError):
                async with asyncio.timeout(CALL_SECONDS):
                    seconds = time.monotonic() - started
                    await self._finish(name, queued, response, seconds, client)
        finally:
            await response.aclose()

    async def _finish(
        self,
        name: str,
        queued: QueuedCall,
        response: httpx2.Response,
        seconds: float,
        client: httpx2.AsyncClient,
    ) -> None:
        """Post the answer to the callback URL as it comes; read it and let it go where there is none."""
        if queued.callback_url is None:
            async for _ in response.aiter_raw():
                pass
            return
        headers = _callback_headers(name, queued.call, response, seconds)
        try:
            answer = await client.post(queued.callback_url, headers=headers, content=response.aiter_raw())
        except httpx2.HTTPError as error:
            self._report(f"{name}: callback failed: {type(error).__name__} {queued.callback_url}")
        else:
            if answer.is_error:
                self._report(f"{name}: callback was answered {answer.status_code}: {queued.callback_url}")


def callback_url(headers: Headers) -> str | None:
    """Return the callback URL of a call, or ``None``; raise `ValueError` when it is no http(s) URL."""
    value = value_of(headers, b"x-callback-url")
    if not value:
        return None
    try:
        url = httpx2.URL(value.decode("latin-1"))
    except httpx2.InvalidURL as error:
        raise ValueError(f"X-Callback-Url: {error}") from error
    if url.scheme not in ("http", "https") or not url.host:
        raise ValueError("X-Callback-Url must be an http or https URL")
    return str(url)


def _stamped_again(call: Call) -> Call:
    """Add the time of the invocation behind that of the enqueuing, so that the function can tell the delay."""
    again = (b"x-start-time", str(time.time_ns()).encode())
    return replace(call, headers=[*call.headers, again])


def _failed(reason: str, call: Call) -> httpx2.Response:
    """Return what the callback is told of a call that the function has not answered."""
    body = unavailable_body(reason, call)
    headers = [(b"content-type", PROBLEM_TYPE), (b"content-length", str(len(body)).encode())]
    return httpx2.Response(503, headers=headers, stream=Bytes(body))


def _callback_headers(name: str, call: Call, response: httpx2.Response, seconds: float) -> Headers:
    raw = [(key.lower(), value) for key, value in response.headers.raw]
    headers = dict(passed_on(raw)) | {
        b"x-call-id": call.stamp.call_id,
        b"x-function-name": name.encode(),
        b"x-function-status": str(response.status_code).encode(),
    }
    headers.setdefault(b"x-duration-seconds", f"{seconds:f}".encode())
    return list(headers.items())

"""Pass a call to the function's process and its answer back, piece by piece in both directions."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import httpx2

from answers import INTERNAL, PROBLEM_TYPE, Headers, Message, Receive, Send, answer, answer_text, problem
from calls import Call, passed_on
from deployments import Deployment, UnavailableError
from ports import ADDRESS

CONNECT_SECONDS = 5.0
# The whole call has a deadline; its parts need none of their own, since a function may think before it answers.
TIMEOUTS = {"connect": CONNECT_SECONDS, "read": None, "write": None, "pool": CONNECT_SECONDS}


async def invoke(deployment: Deployment, call: Call, body: httpx2.AsyncByteStream) -> httpx2.Response:
    """
    Send *call* to the function and return its answer, whose body is still to be read; close it then.

    Raises:
        UnavailableError: the function has no process.
        httpx2.TransportError: the process does not answer as HTTP should.
    """
    process = await deployment.acquire()
    deployment.invocations += 1
    host = f"{ADDRESS}:{process.port}"
    request = httpx2.Request(
        call.method,
        f"http://{host}",
        headers=[(b"host", host.encode()), *call.headers],
        stream=body,
        # The target as it came: a URL object would encode it anew.
        extensions={"target": call.target, "timeout": TIMEOUTS},
    )
    return await process.transport.handle_async_request(request)


async def relay(deployment: Deployment, call: Call, receive: Receive, send: Send, timeout_seconds: float) -> None:
    """Answer the client with what the function answers; let the function go when the client has gone."""
    body = RequestBody(call, receive)
    client = asyncio.create_task(body.pump())
    relaying = asyncio.create_task(_relay(deployment, call, body, _Answer(send, call), timeout_seconds))
    try:
        # The client's side ends only when it disconnects.
        await asyncio.wait({client, relaying}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        client.cancel()
        if not relaying.done():
            relaying.cancel()
        await asyncio.gather(client, relaying, return_exceptions=True)
    if not relaying.cancelled():
        relaying.result()


class RequestBody(httpx2.AsyncByteStream):
    """The body of a client's request on its way to the function; one piece waits at a time."""

    def __init__(self, call: Call, receive: Receive) -> None:
        self._wanted = call.has_body
        self._receive = receive
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(1)

    async def pump(self) -> None:
        """Take what the client sends, until it disconnects."""
        more = self._wanted
        while (message := await self._receive())["type"] != "http.disconnect":
            if more:
                await self._pieces.put(message.get("body", b""))
                more = message.get("more_body", False)
                if not more:
                    await self._pieces.put(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the pieces as they come; an empty one is no end in HTTP's chunks either."""
        while self._wanted and (piece := await self._pieces.get()) is not None:
            if piece:
                yield piece


class _Answer:
    """The client's side of the answer: it can be begun once."""

    def __init__(self, send: Send, call: Call) -> None:
        self._send = send
        self._call = call
        self.begun = False

    async def send(self, message: Message) -> None:
        self.begun = True
        await self._send(message)

    async def fail(self, text: str) -> None:
        """Answer 502, or break the connection off where the status is out: an answer cut short must not look whole."""
        if not self.begun:
            await answer_text(self.send, 502, text, self._call.stamp.on_answer([INTERNAL]))

    async def unavailable(self, error: UnavailableError) -> None:
        """Answer 503 with the reason, as problem details (RFC 9457)."""
        body = unavailable_body(str(error), self._call)
        headers = self._call.stamp.on_answer([INTERNAL, *_retry_after(error)])
        await answer(self.send, 503, body, PROBLEM_TYPE, headers)


def unavailable_body(detail: str, call: Call) -> bytes:
    """Return the body of a 503: it says why the function has not answered."""
    return problem(503, "Service Unavailable", detail, call.stamp.call_id)


def _retry_after(error: UnavailableError) -> Headers:
    """Return the header, where the function is started again by itself."""
    if error.retry_after_seconds is None:
        return []
    return [(b"retry-after", str(max(1, math.ceil(error.retry_after_seconds))).encode())]


async def _relay(
    deployment: Deployment, call: Call, body: RequestBody, answer: _Answer, timeout_seconds: float
) -> None:
    name = deployment.function.name
    try:
        async with asyncio.timeout(timeout_seconds):
            response = await invoke(deployment, call, body)
            try:
                await _copy(response, call, answer)
            finally:
                await response.aclose()
    except UnavailableError as error:
        await answer.unavailable(error)
    except TimeoutError:
        await answer.fail(f"No answer from {name} within {timeout_seconds:g} s (upstream_timeout).")
    except httpx2.TransportError as error:
        await answer.fail(f"Can't reach service for: {name}. ({type(error).__name__})")


async def _copy(response: httpx2.Response, call: Call, answer: _Answer) -> None:
    headers = [(name.lower(), value) for name, value in response.headers.raw]
    await answer.send(
        {
            "type": "http.response.start",
            "status": response.status_code,
            "headers": call.stamp.on_answer(passed_on(headers)),
        }
    )
    # Raw: what the function compressed stays compressed.
    async for piece in response.aiter_raw():
        await answer.send({"type": "http.response.body", "body": piece, "more_body": True})
    await answer.send({"type": "http.response.body", "body": b""})

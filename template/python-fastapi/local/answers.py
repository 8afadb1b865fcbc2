"""ASGI's types, and the short answers that the gateway gives itself."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

PROBLEM_TYPE = b"application/problem+json"
INTERNAL = (b"x-openfaas-internal", b"proxy")
"""Marks an answer that is the platform's and not the function's."""


def problem(status: int, title: str, detail: str, call_id: bytes) -> bytes:
    """Return problem details (RFC 9457), as the functions themselves answer."""
    content = {
        "type": "about:blank",
        "title": title,
        "status": status,
        "detail": detail,
        "call_id": call_id.decode("latin-1"),
    }
    return json.dumps(content).encode()


async def answer(
    send: Send,
    status: int,
    body: bytes,
    content_type: bytes,
    headers: Iterable[tuple[bytes, bytes]] = (),
) -> None:
    """Send a whole answer."""
    head = [(b"content-type", content_type), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


async def answer_text(send: Send, status: int, text: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    """Send *text* as it is."""
    await answer(send, status, text.encode(), b"text/plain; charset=utf-8", headers)


async def answer_json(send: Send, status: int, content: object) -> None:
    """Send *content* as JSON."""
    await answer(send, status, json.dumps(content).encode(), b"application/json")

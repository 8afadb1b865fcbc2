"""The webhook, and what its answers mean for an event."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx2

from faasbase import Reject, Retry, Secret, signed_headers
from faasbase.errors import SettingError
from faasbase.tracing import client_span, inject

from .outcomes import Outcome

logger = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
_AGAIN = (408, 425, 429)


class Webhook:
    """Posts to *url*, if there is one; with *secret_name*, what is posted is signed."""

    def __init__(self, client: httpx2.AsyncClient, url: httpx2.URL | None, secret_name: str) -> None:
        self._client, self._url, self._secret_name = client, url, secret_name

    async def post(self, event_id: str, event_type: str, outcome: Outcome) -> None:
        """
        Post *outcome*.

        Raises:
            Retry: The webhook is away, or asks to be called later.
            Reject: It does not want this event.
        """
        if self._url is not None:
            body = json.dumps({"type": event_type, "id": event_id, "data": outcome.model_dump()}).encode()
            headers = {"content-type": "application/json"}
            if self._secret_name:
                headers |= await signed_headers(body, self._secret_name, message_id=event_id)
            await self._send(self._url, body, headers)
        logger.info(event_type, extra={"order_id": outcome.order_id})

    async def _send(self, url: httpx2.URL, body: bytes, headers: dict[str, str]) -> None:
        with client_span("POST", **{"http.request.method": "POST", "server.address": url.host}) as span:
            inject(headers)
            try:
                # Of the answer only the status counts: however long the rest is, it is not read.
                async with self._client.stream("POST", url, content=body, headers=headers) as answer:
                    span.set_attribute("http.response.status_code", answer.status_code)
            except httpx2.TransportError as exc:
                raise Retry(f"the webhook cannot be reached: {type(exc).__name__}") from exc
            _judge(answer)


@asynccontextmanager
async def open_webhook(environ: Mapping[str, str]) -> AsyncIterator[Webhook]:
    """
    Open what posts to ``WEBHOOK_URL``; where that is not set, events are only logged.

    Raises:
        SettingError: It is no http or https URL.
        SecretMissingError: ``WEBHOOK_SECRET`` names a secret that is not there.
    """
    url, secret_name = _url(environ.get("WEBHOOK_URL", "")), environ.get("WEBHOOK_SECRET", "")
    if secret_name:
        Secret(secret_name, setting="WEBHOOK_SECRET").check()
    # Its line for each request has the URL, and in that may stand a token.
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    async with httpx2.AsyncClient(timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        yield Webhook(client, url, secret_name)


def _url(text: str) -> httpx2.URL | None:
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        url = httpx2.URL()
    if text and not (url.scheme in ("http", "https") and url.host):
        raise SettingError("WEBHOOK_URL", "must be a URL that starts with http:// or https://")
    return url if text else None


def _judge(answer: httpx2.Response) -> None:
    if answer.is_success:
        return
    if answer.status_code >= 500 or answer.status_code in _AGAIN:
        after = answer.headers.get("retry-after", "")
        seconds = float(after) if after.isdigit() and len(after) < 6 else None
        raise Retry(f"the webhook answers {answer.status_code}", after_seconds=seconds)
    raise Reject(f"the webhook answers {answer.status_code}")

"""Tell a webhook what became of an order, again and again until it has taken it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from faasbase import Event, on_event

from .outcomes import Outcome
from .webhook import Webhook, open_webhook

_open: list[Webhook] = []


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[None]:
    """Open the connections to the webhook, before the first event comes."""
    async with open_webhook(os.environ) as webhook:
        _open.append(webhook)
        yield
        _open.remove(webhook)


@on_event("order.fulfilled", "order.rejected")
async def notify(event: Event[Outcome]) -> None:
    """Post the event; the webhook knows a repeat by its id."""
    await _open[-1].post(event.id, event.type, event.data)

"""
Events: one handler, marked once, for whatever brings them.

    @on_event("order.created")
    async def fulfil(event: Event[Order]) -> None: ...

Returning settles the event; `Retry` or an unexpected exception has it delivered again; `Reject`, or data that does not
validate, gives it up.  Events are CloudEvents 1.0 (https://github.com/cloudevents/spec).
"""

from __future__ import annotations

from .envelope import Event
from .handlers import EventHandler, event_handlers, on_event
from .outgoing import PublishError
from .publishing import publish, publish_sync
from .records import Delivery, current_delivery

__all__ = [
    "Delivery",
    "Event",
    "EventHandler",
    "PublishError",
    "current_delivery",
    "event_handlers",
    "on_event",
    "publish",
    "publish_sync",
]

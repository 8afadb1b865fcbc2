"""Events put into a processor as a transport would put them: plain messages, or with headers of their own."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from pydantic import BaseModel

from faasbase.events.envelope import Parcel
from faasbase.events.handlers import event_handlers
from faasbase.events.outcomes import Outcome
from faasbase.events.processing import Processor
from faasbase.events.records import Record


class Order(BaseModel):
    id: int


def module_of(*functions: Any) -> ModuleType:
    """Return a handler's module with *functions*."""
    module = ModuleType("handler")
    for function in functions:
        setattr(module, function.__name__, function)
    return module


def processor_of(*functions: Any, **options: Any) -> Processor:
    """Return a processor of marked *functions*."""
    return Processor(event_handlers(module_of(*functions)), **options)


async def deliver(
    processor: Processor,
    content: bytes = b'{"id": 7}',
    headers: dict[str, str] | None = None,
    *,
    position: str = "orders/3/41",
    **changed: Any,
) -> Outcome:
    """Deliver a plain message of topic ``orders``, or an event with ``ce_`` *headers*."""
    given = headers or {}
    place, _, offset = position.rpartition("/")
    record = Record("kafka", "orders", place, int(offset), content, given, source="kafka:orders", **changed)
    plain = (position, "kafka:orders", "orders")
    return await processor.process(record, Parcel(content, given, "ce_", percent_encoded=False, plain=plain))

"""What the notifier is told of an order."""

from __future__ import annotations

from pydantic import BaseModel, Field


class Outcome(BaseModel):
    """What became of an order; articles are *missing* where it was rejected."""

    order_id: str
    customer: str
    missing: list[str] = Field(default_factory=list)

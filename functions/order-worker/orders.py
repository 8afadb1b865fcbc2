"""The parts of an order that its stock is reserved by, and what is told of it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field, StringConstraints

Sku = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class Line(BaseModel):
    """Some of one article."""

    sku: Sku
    quantity: int = Field(ge=1, le=1000)


class Order(BaseModel):
    """An order that was taken."""

    id: str = Field(min_length=1, max_length=100)
    customer: str = Field(min_length=1, max_length=200)
    lines: list[Line] = Field(min_length=1, max_length=100)


class Outcome(BaseModel):
    """What became of an order: reserved as a whole, or not at all since articles are *missing*."""

    order_id: str
    customer: str
    missing: list[str] = Field(default_factory=list)

"""What an order is, as callers send it and as the other functions get it."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

Sku = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
MAX_LINES = 100


class Line(BaseModel):
    """Some of one article."""

    model_config = ConfigDict(extra="forbid")

    sku: Sku
    quantity: int = Field(ge=1, le=1000)


class NewOrder(BaseModel):
    """An order as it is sent."""

    model_config = ConfigDict(extra="forbid")

    customer: str = Field(min_length=1, max_length=200)
    lines: list[Line] = Field(min_length=1, max_length=MAX_LINES)

    @field_validator("lines")
    @classmethod
    def _each_once(cls, lines: list[Line]) -> list[Line]:
        if len({line.sku for line in lines}) < len(lines):
            raise ValueError("each sku stands in one line only")
        return lines


class Order(NewOrder):
    """An order that was taken."""

    id: str


class Accepted(BaseModel):
    """What the caller gets."""

    order_id: str

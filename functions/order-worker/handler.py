"""Reserve what an order asks for, once, and tell how that went."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Request

from faasbase import Event, on_event, publish

from .orders import Order, Outcome, Sku
from .stock import Stock, open_stock

router = APIRouter()
logger = logging.getLogger(__name__)
_open: list[Stock] = []


@asynccontextmanager
async def lifespan(app: Any) -> AsyncIterator[dict[str, Stock]]:
    """Open the stock, before the first event comes."""
    async with open_stock(os.environ) as stock:
        _open.append(stock)
        yield {"stock": stock}
        _open.remove(stock)


@router.get("/stock/{sku}")
async def in_stock(sku: Sku, request: Request) -> int:
    """Tell how many of an article are left."""
    stock: Stock = request.state.stock
    return await stock.left(sku)


@on_event("order.created")
async def reserve(event: Event[Order]) -> None:
    """Reserve all of an order or nothing; a repeat finds what the first run has reserved, and tells the same."""
    order = event.data
    missing = await _open[-1].reserve(order.id, {line.sku: line.quantity for line in order.lines})
    kind = "order.rejected" if missing else "order.fulfilled"
    await publish(kind, Outcome(order_id=order.id, customer=order.customer, missing=missing), key=order.id)
    logger.info("refused" if missing else "reserved", extra={"order_id": order.id})

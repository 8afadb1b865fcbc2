"""Take an order over HTTP and tell the others of it: one event an order, however often it is sent."""

from fastapi import APIRouter

from faasbase import current_operation, idempotent, problem_responses, publish

from .orders import Accepted, NewOrder, Order

router = APIRouter()


@router.post("/", status_code=202, responses=problem_responses(400, 409, 422, 503))
@idempotent(ttl="24h")
async def take_order(order: NewOrder) -> Accepted:
    """Accept an order; a repeat with the same `Idempotency-Key` gets the same answer, and is no second order."""
    operation = current_operation()
    assert operation is not None  # noqa: S101 - within @idempotent there is one
    # The same in every run of the operation: a run cut short is no other order when it is repeated.
    order_id = operation.id
    placed = Order(id=order_id, **order.model_dump())
    await publish("order.created", placed, key=order_id, id=order_id, subject=order_id)
    return Accepted(order_id=order_id)

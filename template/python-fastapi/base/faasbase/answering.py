"""Answers made inside the instrumented app, so that the call's span tells the status that the caller gets."""

from __future__ import annotations

from typing import Any

from .errors import Problem
from .exchange import Exchange
from .tracing import EXCHANGE

CRASH = Problem(500, "the function failed; see its log for this call")
REFUSAL = "faasbase.refusal"
"""Key of the scope under which `refuse` finds the messages of its answer."""


def answering(app: Any) -> Any:
    """
    Return *app*, which knows no problem details, so that it answers with them itself.

    Were that left to the watchdog, the call's span would be over and tell no status.
    """

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        exchange: Exchange | None = scope.get(EXCHANGE)
        try:
            await app(scope, receive, send)
        except Problem as problem:
            if exchange is None or exchange.started:
                raise
            for message in exchange.messages(problem):
                await send(message)
        except Exception:
            if exchange is not None:
                exchange.fail_span(CRASH)
            raise

    return answer


async def refuse(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what the watchdog has put into *scope*."""
    for message in scope[REFUSAL]:
        await send(message)

"""Write down, each night, how much is stored."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from faasbase import Event, current_store, on_event

from .usage import measure

logger = logging.getLogger(__name__)


@on_event("cron-function")
async def report(event: Event[object]) -> None:
    """Measure the store and put the day's report into it; the cron-connector calls by the schedule in stack.yml."""
    store = current_store()
    # Anyone may call, and the event's own time would let them write over the report of any day.
    day = datetime.now(UTC).date()
    usage = await measure(store)
    # Named by its day: a repeat replaces the report, and adds none.
    stored = await store.put(usage.as_json(), key=f"reports/{day}.json", content_type="application/json")
    logger.info("%d objects, %d bytes", usage.objects, usage.total_bytes, extra={"report": stored.key})

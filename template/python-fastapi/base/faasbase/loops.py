"""The event loop of the thread that asks."""

from __future__ import annotations

import asyncio


def running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop that runs in this thread, None where it is free to wait."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None

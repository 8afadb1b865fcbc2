"""`/_/health` and `/_/ready`, as of-watchdog answers them: healthy means listening, ready means able to take a call."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from .errors import Problem
from .exchange import Exchange, Send
from .lifecycle import Lifecycle
from .settings import Settings

Ready = Callable[[], Any]
AskFunction = Callable[[Any, Any, Exchange, float], Awaitable[None]]

logger = logging.getLogger("faasbase")

PROBES = ("/_/health", "/_/ready")
_READY_SECONDS = 2.0


class Probes:
    """Answers probes; `ready_path` is asked of the function by *ask*, which takes the seconds that it may need."""

    def __init__(self, settings: Settings, lifecycle: Lifecycle, ready: Ready | None, ask: AskFunction) -> None:
        self._settings = settings
        self._lifecycle = lifecycle
        self._ready = ready
        self._ask = ask
        # Threads of its own, and one question at a time: a ready() that hangs must take nobody else's thread.
        self._executor = ThreadPoolExecutor(1, "ready")
        self._asked: asyncio.Future[Any] | None = None

    async def answer(self, scope: Any, receive: Any, send: Send) -> None:
        """Answer the probe at ``scope["path"]``."""
        exchange = Exchange(send, "", self._lifecycle)
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["method"] != "GET":
            await exchange.answer(Problem(405, "probes are GET requests", headers={"Allow": "GET"}))
        elif not self._lifecycle.healthy:
            await exchange.answer(Problem(503, "not taking calls"))
        elif scope["path"] == "/_/health":
            await exchange.answer_text(200, b"OK")
        else:
            await self._answer_ready(scope, receive, exchange)

    async def _answer_ready(self, scope: Any, receive: Any, exchange: Exchange) -> None:
        limit, path = self._settings.max_inflight, self._settings.ready_path
        if limit and self._lifecycle.inflight >= limit:
            await exchange.answer(Problem(429, f"{limit} calls are being handled, the most at a time"))
        elif not self._lifecycle.started or not await self._user_is_ready():
            await exchange.answer(Problem(503, "not ready"))
        elif path is not None:
            asked = {**scope, "path": path, "raw_path": path.encode("utf-8")}
            await self._ask(asked, receive, exchange, _READY_SECONDS)
        else:
            await exchange.answer_text(200, b"OK")

    async def _user_is_ready(self) -> bool:
        if self._ready is None:
            return True
        if self._asked is None or self._asked.done():
            self._asked = asyncio.ensure_future(self._ask_user(self._ready))
        asked = self._asked
        try:
            await asyncio.wait({asked}, timeout=_READY_SECONDS)
            return asked.done() and bool(asked.result())
        except Exception:
            logger.exception("ready() failed")
            return False

    async def _ask_user(self, ready: Ready) -> Any:
        try:
            if inspect.iscoroutinefunction(ready):
                async with asyncio.timeout(_READY_SECONDS):
                    return await ready()
            return await asyncio.get_running_loop().run_in_executor(self._executor, ready)
        except SystemExit as exc:
            # In a task it would end the loop, and every call in flight with it.
            raise RuntimeError("ready() called exit") from exc

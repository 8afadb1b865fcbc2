"""
Events pushed over HTTP: in CloudEvents' binary, structured or batched mode, or by one of OpenFaaS' connectors.

Binary mode has the attributes in ``ce-`` headers and the data for its body, structured mode all of an event as
``application/cloudevents+json``; `batches` has batches, `messages` connectors, `marks` what is an event and no call.

What the handler says becomes a status: settled 204; never 4xx, which OpenFaaS' queue workers do not retry; again later
503 (or the handler's own 429) with ``Retry-After``.  Only the sender counts attempts.  Where ``DEADLETTER_URL`` is set,
what is given up is kept there before the 4xx is answered.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ...errors import Problem
from ...settings import Settings
from ..envelope import BATCH, STRUCTURED, Envelope, MalformedError, media_type, read_envelope, structured_envelope
from ..handlers import EventHandler
from ..outcomes import SETTLED, Outcome, malformed
from ..processing import Processor
from ..records import Record
from .batches import BatchProblem, Failure, read_batch, settle_all, shown_id
from .dead_letters import keep_letter
from .guarding import Pushers
from .messages import item_record, pushed_message, request_headers

RETRY_AFTER_SECONDS = 5.0
"""When an event is to be sent again, where nobody knows better."""
_LONGEST_SECONDS = 1e9
"""Beyond it a handler has named no time: infinity, or no number."""

_Opened = tuple[Record, Envelope, Outcome]


class EventsApp:
    """
    The ASGI app that pushed events go to.

    Raises:
        SettingError: Anyone could push events, and nobody has said that anyone may.
    """

    def __init__(self, handlers: Sequence[EventHandler], settings: Settings) -> None:
        policy = settings.events
        self._pushers = Pushers(settings)
        self._function = settings.qualified_name
        self._processor = Processor(
            handlers,
            timeout_seconds=policy.timeout,
            ignore_unknown=policy.unknown == "ignore",
            propagated=settings.propagate_headers,
            lanes=policy.lanes,
        )
        self._lanes = policy.lanes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if request.method != "POST":
            raise Problem(405, "events are pushed by POST", headers={"Allow": "POST"})
        await self._pushers.admit(request)
        content = await _body(request)
        is_batch = media_type(request.headers.get("content-type", "")) == BATCH
        problem = await (self._batch if is_batch else self._single)(scope, content)
        if problem is not None:
            raise problem
        await Response(status_code=204)(scope, receive, send)

    async def _single(self, scope: Scope, content: bytes) -> Problem | None:
        try:
            record, parcel = pushed_message(request_headers(scope["headers"]), content)
        except MalformedError as exc:
            return malformed(exc, "").problem
        return _problem(await self._settle(_opened(record, partial(read_envelope, parcel))))

    async def _batch(self, scope: Scope, content: bytes) -> Problem | None:
        try:
            items = read_batch(content)
        except MalformedError as exc:
            return malformed(exc, "").problem
        headers = request_headers(scope["headers"])
        opened = [_opened_item(headers, item) for item in items]
        works = [partial(self._settle, one, partial(json.dumps, item)) for one, item in zip(opened, items, strict=True)]
        outcomes = await settle_all(works, self._lanes_of(opened))
        failures = [
            Failure(index, shown_id(envelope), problem, outcome.again)
            for index, ((_, envelope, _), outcome) in enumerate(zip(opened, outcomes, strict=True))
            if (problem := _problem(outcome)) is not None
        ]
        return BatchProblem(failures, len(items)) if failures else None

    def _lanes_of(self, opened: Sequence[_Opened]) -> list[asyncio.Semaphore]:
        """Return the lanes that each event runs in; handlers of batches get large ones only if as many events wait."""
        single = asyncio.Semaphore(self._lanes)
        gathered = asyncio.Semaphore(max(self._lanes, self._processor.largest_batch))
        return [gathered if self._processor.gathers(envelope.type) else single for _, envelope, _ in opened]

    async def _settle(self, opened: _Opened, write: Callable[[], str] | None = None) -> Outcome:
        """Process an event; *write* returns the content of one that was among others, for a letter."""
        record, envelope, outcome = opened
        outcome = await self._processor.process(record, envelope, outcome)
        if not outcome.dead:
            return outcome
        if write is not None:
            record.content = write().encode("utf-8")
        return await keep_letter(record, envelope, outcome, self._function)


async def _body(request: Request) -> bytes:
    try:
        return await request.body()
    except HTTPException as exc:
        raise Problem(exc.status_code, exc.detail) from exc


def _opened(record: Record, read: Callable[[], Envelope]) -> _Opened:
    try:
        return record, read(), SETTLED
    except MalformedError as exc:
        return record, Envelope({}), malformed(exc, record.position)


def _opened_item(headers: Mapping[str, str], item: Any) -> _Opened:
    record = item_record(headers, STRUCTURED)
    # Reading takes the data out of what it reads, and a letter needs it.
    return _opened(record, partial(structured_envelope, dict(item) if isinstance(item, dict) else item))


def _problem(outcome: Outcome) -> Problem | None:
    """Return what the pusher is told of an event, None where it is settled."""
    if outcome.dead:
        return outcome.problem or Problem(422, outcome.reason)
    if not outcome.again:
        return None
    after = outcome.after_seconds
    known = after is not None and after < _LONGEST_SECONDS
    later = Problem(503, outcome.reason, retry_after_seconds=after if known else RETRY_AFTER_SECONDS)
    if outcome.problem is None:
        return later
    problem = outcome.problem
    if not any(name.lower() == "retry-after" for name in problem.headers):
        problem.headers["Retry-After"] = later.headers["Retry-After"]
    return problem

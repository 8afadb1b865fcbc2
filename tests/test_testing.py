"""`faasbase.testing`, as a user's unit tests use it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from faasbase.errors import HandlerError, SettingError
from faasbase.idempotency import current_ledger
from faasbase.idempotency.memory import MemoryRecords
from faasbase.idempotency.redis import RedisRecords
from faasbase.testing import captured_spans, client, memory_backends, signed
from tests.protected import module_of

HANDLER = """
import logging
from contextlib import asynccontextmanager

from fastapi import APIRouter
from pydantic import BaseModel

from faasbase import CacheDep, Event, Problem, StoreDep, cached, current_call, on_event, span

router = APIRouter()
life = []
fulfilled = []
loads = []


class Order(BaseModel):
    amount: int


@asynccontextmanager
async def lifespan(app):
    life.append("start")
    yield
    life.append("stop")


@router.post("/orders")
async def order(order: Order) -> dict[str, int]:
    if order.amount > 100:
        raise Problem(409, "too many")
    with span("price", **{"order.amount": order.amount}):
        return {"price": await price(order.amount)}


@cached(ttl="1m")
async def price(amount: int) -> int:
    loads.append(amount)
    return amount * 3


@router.get("/call")
async def call() -> dict[str, str]:
    return {"id": current_call().call_id}


@router.post("/objects")
async def put(store: StoreDep) -> dict[str, str]:
    stored = await store.put(b"hello", content_type="text/plain")
    return {"url": await store.url(stored.key)}


@router.get("/crash")
async def crash() -> None:
    raise RuntimeError("the reason is not for callers")


@on_event("order.created")
async def fulfil(event: Event[Order]) -> None:
    fulfilled.append(event.data.amount)
"""


@pytest.fixture
def handler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the handler as a module of its own, for each test anew."""
    (tmp_path / "handler.py").write_text(HANDLER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "handler", raising=False)
    return importlib.import_module("handler")


def test_client_runs_start_up_and_shut_down(handler: Any) -> None:
    with client(handler) as function:
        assert handler.life == ["start"]
        assert function.post("/orders", json={"amount": 2}).json() == {"price": 6}
    assert handler.life == ["start", "stop"]


def test_answers_are_those_of_the_whole_function(handler: Any) -> None:
    with client(handler) as function:
        refused = function.post("/orders", json={"amount": 101}, headers={"x-call-id": "abc-1"})
        assert (refused.status_code, refused.json()["detail"]) == (409, "too many")
        assert refused.json()["call_id"] == refused.headers["x-call-id"] == "abc-1"
        invalid = function.post("/orders", json={"amount": "many"})
        assert invalid.status_code == 422
        assert invalid.json()["errors"] == [
            {"field": "body.amount", "message": "Input should be a valid integer, unable to parse string as an integer"}
        ]
        crashed = function.get("/crash")
        assert crashed.status_code == 500
        assert "reason" not in crashed.text


def test_each_client_starts_with_an_empty_cache(handler: Any) -> None:
    for _ in range(2):
        with client(handler) as function:
            for _ in range(3):
                assert function.post("/orders", json={"amount": 5}).json() == {"price": 15}
    assert handler.loads == [5, 5]


def test_stored_objects_open_through_the_client(handler: Any) -> None:
    with client(handler, root_path="/function/shop") as function:
        url = function.post("/objects").json()["url"]
        assert url.startswith("http://testserver/function/shop/_/objects/")
        opened = function.get(url.removeprefix("http://testserver"))
        assert (opened.status_code, opened.text) == (200, "hello")
        assert function.get(url.replace("signature=", "signature=0")).status_code == 403


def test_events_reach_their_handler(handler: Any) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/shop", "ce-type": "order.created"}
    with client(handler) as function:
        assert function.post("/", json={"amount": 7}, headers=headers).status_code == 204
    assert handler.fulfilled == [7]


def test_spans_of_a_call_are_captured(handler: Any) -> None:
    with captured_spans() as spans, client(handler) as function:
        function.post("/orders", json={"amount": 2})
        names = [span.name for span in spans]
    assert names[-1] == "POST /orders"
    assert "price" in names
    trace_ids = {span.context.trace_id for span in spans if span.context}
    assert len(trace_ids) == 1
    price = next(span for span in spans if span.name == "price")
    assert price.attributes == {"order.amount": 2}


@pytest.mark.anyio
async def test_cached_functions_can_be_tested_without_a_client(handler: Any) -> None:
    async with memory_backends():
        assert [await handler.price(3), await handler.price(3)] == [9, 9]
    assert handler.loads == [3]


def test_settings_that_do_not_fit_fail_as_at_start(handler: Any) -> None:
    bad: dict[str, Any] = {"cache_url": "carrier-pigeon://coop"}
    with pytest.raises(SettingError, match="CACHE_URL"), client(handler, **bad):
        pass
    handler.app = handler.router
    with pytest.raises(HandlerError, match="router and app"), client(handler):
        pass


@pytest.mark.parametrize(
    ("settings", "kind"), [({}, MemoryRecords), ({"cache_url": "redis://127.0.0.1:1"}, RedisRecords)]
)
def test_records_are_in_memory_unless_the_cache_is_redis(handler: Any, settings: dict[str, Any], kind: type) -> None:
    with client(handler, **settings):
        assert isinstance(current_ledger().backend, kind)


UNRECORDABLE = """
from fastapi.responses import StreamingResponse
from faasbase import idempotent

@idempotent()
async def handle(order: dict) -> StreamingResponse:
    return StreamingResponse(iter(()))
"""
RECORDED = """
from faasbase import idempotent

@idempotent()
async def handle(n: int) -> int:
    return n
"""


def test_idempotent_handler_is_checked_as_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """And only the handler's own: what other tests of the process have decorated is none of it."""
    unrecordable, recorded = module_of(UNRECORDABLE, monkeypatch), module_of(RECORDED, monkeypatch)
    with pytest.raises(HandlerError, match="response with a body"), client(unrecordable):
        pass
    with pytest.raises(SettingError, match=r"IDEMPOTENCY_URL .*must name"):  # noqa: SIM117
        with client(recorded, idempotency_url=""):
            pass
    with client(recorded) as function:
        assert function.post("/?n=3", headers={"idempotency-key": "k"}).json() == 3


EVENTS = """
from faasbase import Event, on_event, publish
from pydantic import BaseModel


class Order(BaseModel):
    id: int


@on_event("order.created")
async def fulfil(event: Event[Order]) -> None:
    await publish("order.fulfilled", event.data)


async def handle(order: Order) -> None:
    await publish("order.fulfilled", order)
"""


def test_events_are_brought_and_those_published_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """From a handler of events and from `handle` alike; ids are derived from the event that was handled."""
    handler = module_of(EVENTS, monkeypatch)
    with client(handler) as function:
        assert function.publish_event("order.created", {"id": 7}, id="e-1").status_code == 204
        assert function.publish_event("order.created", {"id": "x"}).status_code == 422
        assert function.post("/", json={"id": 8}).status_code == 200
        assert function.publish_event("order.created", handler.Order(id=9)).status_code == 204
        first, second, third = function.published
    assert third.data == {"id": 9}
    assert (first.type, first.data, second.data) == ("order.fulfilled", {"id": 7}, {"id": 8})
    assert first.source == "/function/function"
    assert first.id != second.id


def test_model_is_signed_as_its_json() -> None:
    """As `publish_event` takes one."""

    class Order(BaseModel):
        id: int

    assert signed(Order(id=7), "a key of twenty-four bytes")["content"] == b'{"id": 7}'


def test_bytes_reach_the_decoder_of_a_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """They travel in base64, as a structured event has them."""
    source = "from faasbase import Event, on_event\n" + (
        "@on_event('raw', decode=lambda content: content.decode().upper())\n"
        "async def take(event: Event[str]) -> None:\n    assert event.data == 'ABC'\n"
    )
    with client(module_of(source, monkeypatch)) as function:
        assert function.publish_event("raw", b"abc").status_code == 204

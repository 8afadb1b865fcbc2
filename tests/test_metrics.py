"""Metrics stand on their own port, under names that Prometheus and dashboards for of-watchdog know."""

from __future__ import annotations

import re
import subprocess
from collections.abc import AsyncIterator

import anyio.to_thread
import pytest

from tests.child import Process
from tests.processes import run_function
from tests.wire import Answer, call

pytestmark = pytest.mark.anyio

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"

HANDLER = """
from fastapi import APIRouter
from faasbase import Event, cached, counter, gauge, histogram, on_event

router = APIRouter()
ORDERS = counter("shop_orders", "Orders taken.", ("kind",))
WEIGHT = histogram("shop_parcel_grams", "Weight of parcels.", buckets=(1, 10, 100))
STOCK = gauge("shop_stock_items", "Items in stock.")


@cached(ttl=60)
async def price(item: str) -> int:
    return len(item)


@router.get("/order")
async def order(kind: str = "tea") -> int:
    ORDERS.inc(kind=kind)
    WEIGHT.observe(2.5)
    STOCK.set(7)
    return await price(kind)


@on_event("restocked")
async def restock(event: Event[int]) -> None:
    STOCK.inc(event.data)
"""


@pytest.fixture(scope="module")
async def function() -> AsyncIterator[Process]:
    """Run a function with metrics of its own and call it once in every way."""
    async with run_function(HANDLER) as process:
        await process.ready()
        trace = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        await call(process.port, "/order", headers=trace)
        await call(process.port, "/order", headers=trace)
        event = b'{"specversion":"1.0","id":"1","source":"/t","type":"restocked","data":3}'
        kind = {"Content-Type": "application/cloudevents+json"}
        await call(process.port, "/", method="POST", headers=kind, body=event)
        await call(process.port, "/nowhere")
        yield process


async def scrape(function: Process, accept: str = "text/plain") -> Answer:
    """Return what Prometheus gets."""
    return await call(function.metrics_port, "/metrics", headers={"Accept": accept})


async def test_promtool_finds_nothing_wrong(function: Process) -> None:
    """Names, units and help texts pass Prometheus' own linter."""
    text = (await scrape(function)).body
    # promtool exits 3 for findings and prints them to stderr; nothing at all is what we want.
    check = await anyio.to_thread.run_sync(
        lambda: subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=20)
    )
    assert check.returncode == 0, check.stdout + check.stderr
    assert (check.stdout, check.stderr) == (b"", b"")


@pytest.mark.parametrize(
    "line",
    [
        r'shop_orders_total\{kind="tea"\} 2.0',
        r"shop_parcel_grams_sum 5.0",
        r"shop_stock_items 10.0",
        r'http_requests_total\{code="200",method="get"\} 2.0',
        r'http_requests_total\{code="404",method="get"\} 1.0',
        r'http_requests_total\{code="204",method="post"\} 1.0',
        r"http_requests_in_flight 0.0",
        r'faas_events_total\{outcome="settled",type="restocked"\} 1.0',
        r'faas_cache_operations_total\{.*outcome="hit".*\} 1.0',
        r'faas_cache_operations_total\{.*outcome="miss".*\} 1.0',
        r"faas_cold_start_seconds \d+\.\d+",
        r"process_resident_memory_bytes \d.*",
    ],
)
async def test_series_is_there(function: Process, line: str) -> None:
    """The user's, the base's and the process's."""
    text = (await scrape(function)).text
    assert re.search(f"^{line}$", text, re.MULTILINE), text


async def test_openmetrics_carries_exemplars(function: Process) -> None:
    """A scraper that asks for it can go from a slow bucket to its trace."""
    answer = await scrape(function, OPENMETRICS)
    assert (answer.header("content-type") or "").startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
    for name in ("http_request_duration_seconds_bucket", "shop_parcel_grams_bucket", "shop_orders_total"):
        assert re.search(rf'^{name}\{{.*# \{{[^}}]*trace_id="{TRACE}"', answer.text, re.MULTILINE), name


async def test_text_format_has_no_exemplars(function: Process) -> None:
    """The older format does not know them, and a scraper would stop at them."""
    assert "# {" not in (await scrape(function)).text


async def test_path_makes_no_series(function: Process) -> None:
    """A caller cannot fill memory by calling many paths."""
    before = len((await scrape(function)).text.splitlines())
    for number in range(30):
        await call(function.port, f"/nowhere/{number}", headers={"X-Call-Id": f"id-{number}"})
    assert len((await scrape(function)).text.splitlines()) == before


async def test_metrics_are_not_on_the_public_port(function: Process) -> None:
    """``/metrics`` of the function belongs to the handler."""
    assert (await call(function.port, "/metrics")).status == 404

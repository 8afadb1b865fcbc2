"""``publish()``, wherever it sends to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from prometheus_client import REGISTRY

from faasbase import publish
from faasbase.event_policy import EventsPolicy
from faasbase.events.memory_broker import memory_broker as broker_here
from faasbase.events.publishing import opened_publisher
from faasbase.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
async def publisher() -> AsyncIterator[None]:
    """Have events sent to a topic in memory."""
    settings = Settings(function_name="fn", events=EventsPolicy(publish_url="memory://published"))
    async with opened_publisher(settings):
        yield


@pytest.mark.parametrize("name", ["id", "source", "type", "specversion", "time", "data", "data_base64", "Region", ""])
async def test_extension_cannot_take_an_attributes_place(name: str) -> None:
    with pytest.raises(ValueError, match="extension"):
        await publish("order.created", extensions={name: "forged"})


async def test_schema_of_the_data_can_be_named() -> None:
    await publish("order.created", extensions={"dataschema": "/schemas/order"})
    assert broker_here().published[-1].event().dataschema == "/schemas/order"


async def test_metrics_name_no_more_destinations_than_anyone_could_read() -> None:
    """Where a function publishes to a subject for each order, most of them are counted as one."""
    for number in range(80):
        await publish("order.created", to=f"many.{number}")
    series = [
        (sample.labels["destination"], sample.value)
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == "faas_events_published_total" and sample.labels["destination"].startswith(("many.", "other"))
    ]
    assert len(series) == 51
    assert sum(value for _, value in series) == 80
    assert ("many.0", 1.0) in series

"""Events as nobody should send them, and handlers as nobody should write them: each has an outcome, and ends there."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from pydantic import BaseModel, field_validator

from faasbase import Event, Problem, Reject, on_event
from faasbase.event_policy import EventsPolicy
from faasbase.events.dead_letters import DeadLetter
from faasbase.events.envelope import Parcel
from faasbase.events.outcomes import SETTLED, Outcome
from faasbase.events.processing import Begun, Processor
from faasbase.events.records import Record
from faasbase.events.settlement import Settlement
from tests.event_delivery import deliver, processor_of

pytestmark = pytest.mark.anyio

STRUCTURED = {"content-type": "application/cloudevents+json"}
LONG = "x" * 100_000
PRICES = {"EUR": 1.0}


def structured(**changed: Any) -> bytes:
    """Return an event of type ``orders`` whose data is the text ``AP8=`` or what *changed* says."""
    event = {"specversion": "1.0", "id": "1", "source": "/x", "type": "orders", "data_base64": "eyJpZCI6IDd9"}
    return json.dumps(event | changed).encode()


class Price(BaseModel):
    currency: str

    @field_validator("currency")
    @classmethod
    def known(cls, value: str) -> str:
        PRICES[value]
        return value


@on_event("orders")
async def take_any(event: Event[Any]) -> None:
    """Take whatever comes."""


async def test_validator_that_raises_what_it_should_not_is_a_failed_attempt() -> None:
    """pydantic lets a KeyError pass."""

    @on_event("orders")
    async def take(event: Event[Price]) -> None: ...

    processor = processor_of(take)
    assert (await deliver(processor, b'{"currency": "EUR"}')).kind == "settled"
    outcome = await deliver(processor, b'{"currency": "XXX"}')
    assert (outcome.kind, outcome.error) == ("failed", "KeyError")


async def test_decoder_may_reject() -> None:
    """With a reason of its own."""

    def decode(content: bytes) -> Any:
        raise Reject("an old schema")

    @on_event("orders", decode=decode)
    async def take(event: Event[Any]) -> None: ...

    outcome = await deliver(processor_of(take))
    assert (outcome.kind, outcome.reason) == ("rejected", "an old schema")


@pytest.mark.parametrize("batch", [False, True])
async def test_cancelling_that_nobody_asked_for_is_a_failed_attempt(batch: bool) -> None:
    """A handler may await what was cancelled elsewhere."""

    async def cancelled() -> None:
        inner = asyncio.create_task(asyncio.sleep(30))
        inner.cancel()
        await inner

    @on_event("orders")
    async def take(event: Event[Any]) -> None:
        await cancelled()

    @on_event("orders", batch_size=1)
    async def take_all(events: list[Event[Any]]) -> None:
        await cancelled()

    for seconds in (0.0, 5.0):
        outcome = await deliver(processor_of(take_all if batch else take, timeout_seconds=seconds))
        assert (outcome.kind, outcome.error) == ("failed", "CancelledError")


async def broken() -> Outcome:
    """Make a mistake after a while."""
    await asyncio.sleep(0)
    raise RuntimeError("broken")


@pytest.mark.parametrize("at_once", [True, False])
async def test_mistake_of_ours_counts_as_an_attempt_and_ends_as_a_dead_letter(at_once: bool) -> None:
    """Instead of ending the process, which would meet the same message again."""

    class Broken(Processor):
        def begin(self, record: Record, came: Any, outcome: Outcome = SETTLED) -> Begun:
            if at_once:
                raise RuntimeError("broken")
            return broken()

    class Letters:
        async def send(self, letter: DeadLetter) -> None:
            kept.append(letter)

    kept: list[DeadLetter] = []
    settlement = Settlement(Broken([]), EventsPolicy(max_attempts=2), Letters(), "fn")
    verdicts = [
        await settlement.handle(Record("kafka", "orders", "orders/0", 1, b"", {}, attempt=attempt), Parcel(b"", {}))
        for attempt in (1, 2)
    ]
    assert [verdict.after_seconds is None for verdict in verdicts] == [False, True]
    assert [letter.error for letter in kept] == ["RuntimeError"]


@pytest.mark.parametrize(
    ("given", "after"), [(5, 5.0), ("7", 7.0), ("²", None), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("-1", None)]
)
async def test_retry_after_is_read_whatever_it_is(given: Any, after: float | None) -> None:
    """What is no number of seconds says nothing."""

    @on_event("orders")
    async def take(event: Event[Any]) -> None:
        raise Problem(503, "busy", headers={"Retry-After": given})

    outcome = await deliver(processor_of(take))
    assert (outcome.kind, outcome.after_seconds) == ("retried", after)


@pytest.mark.parametrize("name", ["id", "source", "specversion", "subject", "dataschema", "datacontenttype", "time"])
@pytest.mark.parametrize("value", [{"x": 1}, 5, "half of \ud800"])
async def test_attribute_that_is_no_text_never_reaches_the_handler(name: str, value: Any) -> None:
    """Whichever way the data came."""

    @on_event("orders")
    async def take(event: Event[Any]) -> None:
        raise AssertionError("must not run")

    processor = processor_of(take)
    assert (await deliver(processor, structured(**{name: value}), STRUCTURED)).kind == "rejected"
    assert (await deliver(processor, structured(**{name: value, "data_base64": None}), STRUCTURED)).kind == "rejected"


async def test_extension_is_text_a_number_or_a_boolean() -> None:
    """As CloudEvents' JSON format has it; null is none."""
    seen: list[dict[str, str]] = []

    @on_event("orders")
    async def take(event: Event[Any]) -> None:
        seen.append(event.extensions)

    processor = processor_of(take)
    content = structured(count=3, region="eu", nothing=None, subject=None)
    assert (await deliver(processor, content, STRUCTURED)).kind == "settled"
    assert seen == [{"count": "3", "region": "eu"}]
    for odd in ({"a": 1}, ["a"], "\ud800"):
        assert (await deliver(processor, structured(odd=odd), STRUCTURED)).kind == "rejected"


@pytest.mark.parametrize(
    ("wanted", "content", "content_type", "data"),
    [
        (bytes, b"\xff\xe9t\xe9", "text/plain", b"\xff\xe9t\xe9"),
        (bytes, b'{"a": 1}', "application/json", b'{"a": 1}'),
        (str, b'{"a": 1}', "application/json", '{"a": 1}'),
        (str, b'"quoted"', "application/json", "quoted"),
        (str, b"\xe9t\xe9", "text/plain; charset=ISO-8859-1", "été"),
        (str, b"<a/>", "application/xml", "<a/>"),
        (Any, b"\xe9t\xe9", 'text/plain; charset="latin1"; format=flowed', "été"),
    ],
)
async def test_bytes_and_text_are_what_was_sent(wanted: Any, content: bytes, content_type: str, data: Any) -> None:
    """Whatever their type says; text by its charset."""
    seen: list[Any] = []

    async def take(event: Any) -> None:
        seen.append(event.data)

    take.__annotations__["event"] = Event[wanted]
    outcome = await deliver(processor_of(on_event("orders")(take)), content, {"content-type": content_type})
    assert (outcome.kind, seen) == ("settled", [data])


@pytest.mark.parametrize("charset", ["utf-8", "ascii", "unicode_escape", "idna", "no-such"])
async def test_text_that_is_not_of_its_charset_is_rejected(charset: str) -> None:
    """It is never changed; charsets that nobody should use are unknown."""

    @on_event("orders")
    async def take(event: Event[str]) -> None: ...

    content_type = f"text/plain; charset={charset}"
    assert (await deliver(processor_of(take), b"\xff\xe9", {"content-type": content_type})).kind == "rejected"


@pytest.mark.parametrize("error", [Reject(LONG), Problem(503, LONG), Problem(409, LONG), RuntimeError("broken")])
async def test_words_from_outside_are_bounded_in_the_log(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    """Ids and reasons: some readers of logs take 64 KiB a line."""

    @on_event("orders")
    async def take(event: Event[Any]) -> None:
        raise error

    caplog.set_level(logging.INFO, "faasbase.events")
    outcome = await deliver(processor_of(take), structured(id=LONG), STRUCTURED)
    assert len(outcome.reason) < 2000
    assert 0 < len(caplog.text) < 10_000


async def test_keys_of_data_are_bounded_in_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    """And so is the number of errors that is told."""

    @on_event("orders")
    async def take(event: Event[dict[str, int]]) -> None: ...

    content = json.dumps({f"{LONG}{n}": "no number" for n in range(50)}).encode()
    outcome = await deliver(processor_of(take), content)
    assert outcome.problem is not None
    assert outcome.kind == "rejected"
    assert len(outcome.problem.errors) <= 32
    assert max(len(outcome.reason), len(caplog.text)) < 4000

"""Events pushed over HTTP: what the sender is told, and who may push."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from tests.child import Process
from tests.processes import run_function
from tests.wire import Answer, call

pytestmark = pytest.mark.anyio

HANDLER = """
import time

from faasbase import Event, Problem, Reject, Retry, on_event
from pydantic import BaseModel


class Order(BaseModel):
    id: int
    card: str = ""


@on_event("order.created", "order.changed")
async def fulfil(event: Event[Order]) -> None:
    print("fulfilled", event.type, event.id, event.data.id, event.subject, event.extensions)


@on_event("order.later")
async def later(event: Event[Order]) -> None:
    raise Retry("the shop is closed", after_seconds=2.5)


@on_event("order.whenever")
async def whenever(event: Event[float]) -> None:
    raise Retry("some time", after_seconds=event.data)


@on_event("order.never")
async def never(event: Event[Order]) -> None:
    raise Reject("such orders are not taken")


@on_event("order.crash")
async def crash(event: Event[Order]) -> None:
    raise RuntimeError("the secret of the crash")


@on_event("order.problem")
async def problem(event: Event[dict]) -> None:
    raise Problem(**event.data)


@on_event("order.slow")
def slow(event: Event[Order]) -> None:
    time.sleep(0.5)
    print("slow is done")


@on_event("note")
async def note(event: Event) -> None:
    print("noted", repr(event.data))


async def handle() -> str:
    return "a call"
"""
ORDER = {"specversion": "1.0", "id": "e-1", "source": "/shop", "type": "order.created", "data": {"id": 7}}


@pytest.fixture(scope="module")
async def function() -> AsyncIterator[Process]:
    """Run a function with handlers for each outcome."""
    async with run_function(HANDLER) as process:
        await process.ready()
        yield process


async def push(function: Process, event: object, headers: Mapping[str, str] | None = None) -> Answer:
    """Push *event* in structured mode."""
    kind = {"Content-Type": "application/cloudevents+json"}
    body = event if isinstance(event, bytes) else json.dumps(event).encode()
    return await call(function.port, "/", method="POST", headers={**kind, **(headers or {})}, body=body)


async def push_binary(function: Process, kind: str, content_type: str, body: bytes) -> Answer:
    """Push *body* in binary mode."""
    headers = {"ce-specversion": "1.0", "ce-id": "e-2", "ce-source": "/shop", "ce-type": kind, "ce-subject": "a%20b"}
    headers |= {"ce-region": "eu", "Content-Type": content_type}
    return await call(function.port, "/", method="POST", headers=headers, body=body)


async def test_handled_event_is_settled(function: Process) -> None:
    """204, for each of the handler's types."""
    assert (await push(function, ORDER)).status == 204
    assert (await push(function, {**ORDER, "type": "order.changed", "id": "e-9"})).status == 204
    await function.log_line("fulfilled order.created e-1 7 None {}")
    await function.log_line("fulfilled order.changed e-9 7")


async def test_binary_mode_is_the_same_event(function: Process) -> None:
    """Attributes come as headers, percent-encoded, extensions too."""
    assert (await push_binary(function, "order.created", "application/json", b'{"id": 8}')).status == 204
    await function.log_line("fulfilled order.created e-2 8 a b {'region': 'eu'}")


@pytest.mark.parametrize(
    ("content_type", "body", "data"),
    [
        ("application/json", b"[1]", "[1]"),
        ("application/vnd.shop+json", b'{"a": 1}', "{'a': 1}"),
        ("text/plain", "gr\u00fc\u00df".encode(), "'gr\u00fc\u00df'"),
        ("application/octet-stream", b"\x00\xff", r"b'\x00\xff'"),
    ],
)
async def test_data_is_read_by_its_content_type(function: Process, content_type: str, body: bytes, data: str) -> None:
    """JSON is parsed, text decoded, everything else stays bytes."""
    assert (await push_binary(function, "note", content_type, body)).status == 204
    await function.log_line(f"noted {data}")


async def test_retry_tells_when(function: Process) -> None:
    """503 and ``Retry-After``, which OpenFaaS' queue workers honour."""
    answer = await push(function, {**ORDER, "type": "order.later"})
    assert (answer.status, answer.header("retry-after")) == (503, "3")


@pytest.mark.parametrize("seconds", ["inf", "nan"])
async def test_time_that_is_none_is_not_told(function: Process, seconds: str) -> None:
    """The usual one is."""
    answer = await push(function, {**ORDER, "type": "order.whenever", "data": seconds})
    assert (answer.status, answer.header("retry-after")) == (503, "5")


async def test_unexpected_exception_is_to_be_retried(function: Process) -> None:
    """503 without the exception, which is in the log."""
    answer = await push(function, {**ORDER, "type": "order.crash"})
    assert answer.status == 503
    assert answer.header("retry-after")
    assert "secret" not in answer.text
    await function.log_line("the secret of the crash")


async def test_reject_gives_the_event_up(function: Process) -> None:
    """A 4xx is not sent again."""
    answer = await push(function, {**ORDER, "type": "order.never"})
    assert (answer.status, answer.json()["detail"]) == (422, "such orders are not taken")


@pytest.mark.parametrize(
    ("status", "answered", "outcome"),
    [
        (422, 422, "rejected"),
        (404, 404, "rejected"),
        (429, 429, "retried"),
        (503, 503, "retried"),
        (502, 503, "failed"),
    ],
)
async def test_problem_of_a_handler_is_the_answer(function: Process, status: int, answered: int, outcome: str) -> None:
    """A 4xx gives the event up; what is to be sent again says when."""
    event = {**ORDER, "type": "order.problem", "data": {"status": status, "detail": "not that one"}}
    before = await counted(function, outcome)
    answer = await push(function, event)
    assert (answer.status, answer.json()["detail"]) == (answered, "not that one")
    assert bool(answer.header("retry-after")) == (outcome != "rejected")
    assert await counted(function, outcome) == before + 1
    if outcome == "failed":
        await function.log_line("event e-1 failed in problem")


async def test_problem_keeps_its_own_time_and_headers(function: Process) -> None:
    """In whichever case the handler has spelt them."""
    data = {"status": 503, "detail": "closed", "headers": {"retry-after": "77"}}
    answer = await push(function, {**ORDER, "type": "order.problem", "data": data})
    assert [value for name, value in answer.headers if name == "retry-after"] == ["77"]


async def counted(function: Process, outcome: str) -> float:
    """Return how many events of `order.problem` had *outcome*."""
    metrics = (await call(function.metrics_port, "/metrics")).text
    line = f'faas_events_total{{outcome="{outcome}",type="order.problem"}} '
    other = f'faas_events_total{{type="order.problem",outcome="{outcome}"}} '
    found = [text.split()[-1] for text in metrics.splitlines() if text.startswith((line, other))]
    return float(found[0]) if found else 0.0


@pytest.mark.parametrize("kind", ["Application/CloudEvents+json", "APPLICATION/CLOUDEVENTS+JSON; charset=utf-8"])
async def test_content_type_may_be_written_in_any_case(function: Process, kind: str) -> None:
    """RFC 9110 section 8.3.1: media types ignore case."""
    assert (await push(function, ORDER, {"Content-Type": kind})).status == 204
    batch = {"Content-Type": "Application/CloudEvents-Batch+json"}
    assert (await call(function.port, "/", method="POST", headers=batch, body=b"[]")).status == 204


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        (("ce-id", "ce-type"), ["ce-source", "ce-specversion"]),
        (("ce-type", "ce-source", "ce-id"), ["ce-specversion"]),
        (("ce-specversion",), ["ce-id", "ce-source", "ce-type"]),
        (("ce-specversion", "ce-id", "ce-source"), ["ce-type"]),
    ],
)
async def test_event_without_all_its_attributes_says_which(
    function: Process, given: tuple[str, ...], missing: list[str]
) -> None:
    """Taken for a call it would be answered 200 and be lost."""
    headers = dict.fromkeys(given, "1.0") | {"Content-Type": "application/json"}
    answer = await call(function.port, "/", method="POST", headers=headers, body=b"{}")
    assert (answer.status, [error["field"] for error in answer.json()["errors"]]) == (400, missing)


async def test_other_headers_of_the_kind_make_no_event(function: Process) -> None:
    """An extension alone is a header like any other."""
    assert (await call(function.port, "/", method="POST", headers={"ce-region": "eu"})).json() == "a call"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"data": {"id": "seven", "card": "4111-canary"}}, "data.id"),
        ({"data": None}, "data"),
        ({"id": ""}, "id"),
        ({"source": ""}, "source"),
        ({"specversion": "0.3"}, "specversion"),
        ({"time": "yesterday"}, "time"),
        ({"type": "unheard.of"}, "type"),
    ],
)
async def test_event_that_is_not_valid_names_its_field(
    function: Process, change: dict[str, object], field: str
) -> None:
    """422, so that nobody sends it again, and never the value."""
    answer = await push(function, {**ORDER, **change})
    assert answer.status == 422
    assert [error["field"] for error in answer.json()["errors"]] == [field]
    assert "canary" not in answer.text


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000])
async def test_body_that_is_no_event_is_refused(function: Process, body: bytes) -> None:
    """400 for what cannot be read as an event at all."""
    assert (await push(function, body)).status in {400, 422}


@pytest.mark.parametrize("kind", ["application/cloudevents+avro", "application/cloudevents-batch+protobuf"])
async def test_other_formats_of_events_are_refused(function: Process, kind: str) -> None:
    """415, and not a call of the surface."""
    answer = await call(function.port, "/", method="POST", headers={"Content-Type": kind}, body=b"\x00")
    assert answer.status == 415


async def test_binary_data_in_a_structured_event(function: Process) -> None:
    """``data_base64`` is read by its content type."""
    event = {**ORDER, "type": "note", "data_base64": "AP8=", "datacontenttype": "application/octet-stream"}
    del event["data"]
    assert (await push(function, event)).status == 204
    await function.log_line(r"noted b'\x00\xff'")
    assert (await push(function, {**event, "data_base64": "%%"})).status == 400


async def test_other_verbs_are_refused(function: Process) -> None:
    """Events are pushed by POST."""
    answer = await call(function.port, "/", method="PUT", headers={"ce-specversion": "1.0"}, body=b"{}")
    assert (answer.status, answer.header("allow")) == (405, "POST")


async def test_plain_handler_runs_in_a_thread(function: Process) -> None:
    """A ``def`` may block; calls go on meanwhile."""
    slow = asyncio.create_task(push(function, {**ORDER, "type": "order.slow"}))
    await asyncio.sleep(0.1)
    assert (await call(function.port, "/", method="POST")).seconds < 0.3
    assert (await slow).status == 204


async def test_calls_go_to_the_surface(function: Process) -> None:
    """What is no event reaches ``handle``."""
    assert (await call(function.port, "/", method="POST")).json() == "a call"


async def test_handler_is_cut_at_its_time(tmp_path: Path) -> None:
    """``EVENTS_TIMEOUT``: 503, so that it comes again."""
    source = (
        HANDLER
        + """

import asyncio

@on_event("order.endless")
async def endless(event: Event[Order]) -> None:
    await asyncio.sleep(60)
"""
    )
    async with run_function(source, EVENTS_TIMEOUT="300ms", EVENTS_UNKNOWN="ignore") as function:
        answer = await push(function, {**ORDER, "type": "order.endless"})
        unknown = await push(function, {**ORDER, "type": "unheard.of"})
        await function.log_line("endless did not end in time")
    assert (answer.status, bool(answer.header("retry-after")), unknown.status) == (503, True, 204)
    assert 0.25 < answer.seconds < 2.0


async def test_open_push_must_be_asked_for() -> None:
    """The gateway authenticates no function: without a secret or a word the start fails."""
    async with run_function(HANDLER, EVENTS_HTTP_PUBLIC=None).unwaited() as function:
        assert await function.exited() == 1
        assert "start failed: setting EVENTS_HTTP_SECRET" in function.output()


async def test_secret_is_asked_of_the_pusher(tmp_path: Path) -> None:
    """The bearer token of a file, read anew when it rotates; calls are not events."""
    secret = tmp_path / "events"
    secret.write_text("first-token\n")
    env = {"EVENTS_HTTP_PUBLIC": None, "EVENTS_HTTP_SECRET": "events", "FAAS_SECRETS_DIR": str(tmp_path)}
    async with run_function(HANDLER, **env) as function:
        none = await push(function, ORDER)
        wrong = await push(function, ORDER, {"Authorization": "Bearer second-token"})
        right = await push(function, ORDER, {"Authorization": "Bearer first-token"})
        secret.write_text("second-token\n")
        rotated = await push(function, ORDER, {"Authorization": "Bearer second-token"})
        plain = await call(function.port, "/", method="POST")
        output = function.output()
    assert (none.status, none.header("www-authenticate")) == (401, "Bearer")
    assert [wrong.status, right.status, rotated.status, plain.status] == [401, 204, 204, 200]
    assert "-token" not in output


async def test_secret_that_vanishes_is_an_outage_and_not_a_crash(tmp_path: Path) -> None:
    """503, so that the event comes again, and one log line for all of them; then it is there again."""
    secret = tmp_path / "events"
    secret.write_text("the-token")
    env = {"EVENTS_HTTP_PUBLIC": None, "EVENTS_HTTP_SECRET": "events", "FAAS_SECRETS_DIR": str(tmp_path)}
    shown = {"Authorization": "Bearer the-token"}
    async with run_function(HANDLER, **env) as function:
        # Healthy is not yet started, and at start a missing secret is an error.
        await function.ready()
        secret.unlink()
        gone = [await push(function, ORDER, shown) for _ in range(3)]
        secret.write_text(" ")
        empty = await push(function, ORDER, shown)
        secret.write_text("the-token")
        back = await push(function, ORDER, shown)
        secret.unlink()
        again = await push(function, ORDER, shown)
        lines = [line for line in function.lines() if "EVENTS_HTTP_SECRET" in line]
        output = function.output()
    assert {answer.status for answer in (*gone, empty, again)} == {503}
    assert all(answer.header("retry-after") for answer in (*gone, empty, again))
    assert (back.status, len(lines), "Traceback" in output) == (204, 2, False)


async def test_missing_secret_stops_the_start(tmp_path: Path) -> None:
    """Better no function than one that anybody can push to, or nobody."""
    env = {"EVENTS_HTTP_PUBLIC": None, "EVENTS_HTTP_SECRET": "events", "FAAS_SECRETS_DIR": str(tmp_path)}
    async with run_function(HANDLER, **env).unwaited() as function:
        assert await function.exited() == 1
        assert "start failed: setting EVENTS_HTTP_SECRET" in function.output()

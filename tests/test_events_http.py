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

from faasbase import Event, Reject, Retry, on_event
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


@on_event("order.never")
async def never(event: Event[Order]) -> None:
    raise Reject("such orders are not taken")


@on_event("order.crash")
async def crash(event: Event[Order]) -> None:
    raise RuntimeError("the secret of the crash")


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


async def test_batch_is_refused_as_such(function: Process) -> None:
    """A batch over HTTP has one status for many events."""
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    answer = await call(function.port, "/", method="POST", headers=headers, body=b"[]")
    assert answer.status == 415


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


async def test_missing_secret_stops_the_start(tmp_path: Path) -> None:
    """Better no function than one that anybody can push to, or nobody."""
    env = {"EVENTS_HTTP_PUBLIC": None, "EVENTS_HTTP_SECRET": "events", "FAAS_SECRETS_DIR": str(tmp_path)}
    async with run_function(HANDLER, **env).unwaited() as function:
        assert await function.exited() == 1
        assert "start failed: setting EVENTS_HTTP_SECRET" in function.output()

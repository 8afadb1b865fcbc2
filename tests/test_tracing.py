"""One SERVER span a request, one trace from the caller's header to the last log line, and no secret in either."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.child import Process
from tests.otlp_sink import OtlpSink, Span, otlp_sink
from tests.processes import Running, run_function
from tests.wire import Answer, call

pytestmark = pytest.mark.anyio

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"

IMPORTS = """
import logging

from faasbase import Event, FieldError, Problem, StoreDep, cached, counter, on_event, span
"""
FORMS = {
    "handle": "async def handle(name: str = '') -> str:\n    return name\n",
    "router": (
        "from fastapi import APIRouter\nrouter = APIRouter()\n"
        "@router.get('/')\ndef plain(name: str = '') -> str:\n    return name\n"
    ),
    "classic": "def handle(event, context):\n    return {'body': 'classic'}\n",
    "app": (
        "from starlette.applications import Starlette\nfrom starlette.responses import PlainTextResponse\n"
        "from starlette.routing import Route\n"
        "async def root(request):\n    return PlainTextResponse('app')\n"
        "app = Starlette(routes=[Route('/', root)])\n"
    ),
    "fastapi app": (
        "from fastapi import FastAPI\napp = FastAPI()\n@app.get('/')\nasync def root() -> str:\n    return ''\n"
    ),
}
SHOP = (
    IMPORTS
    + """
from fastapi import APIRouter, Request

router = APIRouter()
log = logging.getLogger("shop")
PRICED = counter("shop_prices", "Prices asked.", ("item",))


@cached(ttl=60)
async def price(item: str) -> int:
    with span("look up", **{"shop.item": item}):
        return len(item)


@router.get("/price")
async def ask(item: str, store: StoreDep) -> int:
    log.warning("asked")
    PRICED.inc(item=item)
    await store.put(b"receipt", key="receipts/1")
    return await price(item)


@router.get("/fail")
async def fail(secret: str) -> None:
    with span("failing", password=secret, note=f"token={secret}"):
        log.error("failing with token=%s", secret)
        raise RuntimeError(f"cannot use password={secret}")


@router.get("/tell")
async def tell(request: Request) -> dict[str, str]:
    return dict(request.headers)


@on_event("order.created")
async def created(event: Event[dict]) -> None:
    log.warning("created")
"""
)


LEAKS = ("file", "setting", "dsn", "url", "headers", "raw", "authorization_line", "cookie_line", "query")
LEAKY = (
    SHOP
    + """
import os
from pathlib import Path
from urllib.parse import urlsplit


def secrets_of(request: Request) -> dict[str, str]:
    database, headers = os.environ["SHOP_DB"], request.headers
    return {
        "file": Path(os.environ["FAAS_SECRETS_DIR"], "db-password").read_text(),
        "setting": os.environ["SHOP_API_KEY"],
        "dsn": database,
        "url": urlsplit(database).password,
        "headers": str(dict(headers)),
        "raw": str(headers.raw),
        "authorization_line": f"Authorization: {headers['authorization']}",
        "cookie_line": f"Cookie: {headers['cookie']}",
        "query": str(request.url),
    }


@router.get("/leak")
async def leak(request: Request) -> None:
    leaks = secrets_of(request)
    for name, text in leaks.items():
        log.warning("leak %s as an argument: %s", name, text)
        log.warning("leak %s as a field", name, extra={"note": {"text": [text]}})
    try:
        raise ValueError(f"refused: {leaks}")
    except ValueError:
        log.exception("leak failed")
    with span("leaking") as leaking:
        for name, text in leaks.items():
            leaking.set_attribute(name, text)
        leaking.set_attribute("authorization", request.headers["authorization"])
        raise RuntimeError(f"crashed with {leaks}")
"""
)


@pytest.fixture
def sink() -> Iterator[OtlpSink]:
    """Receive spans."""
    with otlp_sink() as receiving:
        yield receiving


def traced(source: str, sink: OtlpSink, **env: str) -> Running:
    """Run *source* with its spans exported to *sink* soon."""
    # The default batch leaves after five seconds; shut-down flushes anyway, which these tests rely on.
    return run_function(source, OTEL_EXPORTER_OTLP_ENDPOINT=sink.url, OTEL_BSP_SCHEDULE_DELAY="100", **env)


async def spans_of(function: Process, sink: OtlpSink) -> list[Span]:
    """Stop the function, which flushes, and return every span it made."""
    function.send_signal(signal.SIGTERM)
    assert await function.exited() == 0
    return list(sink.spans)


@pytest.mark.parametrize("form", FORMS)
async def test_one_server_span_for_each_request(sink: OtlpSink, form: str) -> None:
    """Every form: the caller's trace goes on in exactly one SERVER span, and probes make none."""
    async with traced(FORMS[form], sink) as function:
        await function.ready()
        for number in range(3):
            trace = f"00-{number:032x}-{PARENT}-01" if number else TRACEPARENT
            answer = await call(function.port, f"/?name=n{number}", headers={"traceparent": trace})
            assert answer.status == 200
        await call(function.port, "/_/health")
        spans = await spans_of(function, sink)
    servers = [span for span in spans if span.kind == "SERVER"]
    assert sorted(span.trace_id for span in servers) == sorted([TRACE, f"{1:032x}", f"{2:032x}"])
    assert {span.parent_id for span in servers} == {PARENT}
    assert [span for span in spans if span.kind != "SERVER"] == []


async def test_server_span_follows_the_stable_conventions(sink: OtlpSink) -> None:
    """HTTP attributes, the FaaS ones, and the gateway's call id; the first call is the cold one."""
    async with traced(FORMS["router"], sink, OPENFAAS_NAME="shop", OPENFAAS_NAMESPACE="fn") as function:
        await call(function.port, "/", headers={"X-Call-Id": "call-1"})
        await call(function.port, "/")
        first, second = await spans_of(function, sink)
    assert first.attributes["http.request.method"] == "GET"
    assert first.attributes["http.response.status_code"] == 200
    assert first.attributes["url.path"] == "/function/shop.fn/"
    assert first.attributes["faas.trigger"] == "http"
    assert first.attributes["faas.invocation_id"] == "call-1"
    assert (first.attributes["faas.coldstart"], second.attributes["faas.coldstart"]) == (True, False)
    assert first.resource["service.name"] == "shop"
    assert first.resource["service.namespace"] == "fn"


async def test_operators_service_name_wins(sink: OtlpSink) -> None:
    """``OTEL_SERVICE_NAME`` is OpenTelemetry's own setting."""
    async with traced(FORMS["handle"], sink, OTEL_SERVICE_NAME="shop.fn") as function:
        await call(function.port, "/")
        (span,) = await spans_of(function, sink)
    assert span.resource["service.name"] == "shop.fn"


async def test_one_trace_from_header_to_log(sink: OtlpSink) -> None:
    """Server, cache, storage and the user's own span stand in one trace with the log line."""
    async with traced(SHOP, sink) as function:
        await call(function.port, "/price?item=tea", headers={"traceparent": TRACEPARENT})
        spans = await spans_of(function, sink)
    (server,) = [span for span in spans if span.kind == "SERVER"]
    names = {span.name for span in spans}
    assert {span.trace_id for span in spans} == {TRACE}
    assert {"look up", "storage.put", "cache.get"} <= names
    assert sum(span.parent_id == PARENT for span in spans) == 1
    (asked,) = [line for line in function.logs() if line["logger"] == "shop"]
    assert (asked["trace_id"], asked["span_id"]) == (TRACE, server.span_id)
    (access,) = [line for line in function.logs() if line["logger"] == "faasbase.access"]
    assert access["trace_id"] == TRACE


@pytest.mark.parametrize("endpoint", [True, False], ids=["exported", "passed through"])
@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": TRACEPARENT},
        {"b3": f"{TRACE}-{PARENT}-1"},
        {"X-B3-TraceId": TRACE, "X-B3-SpanId": PARENT, "X-B3-Sampled": "1"},
        {"X-Kafka-Traceparent": TRACEPARENT},
        {"traceparent": "rubbish", "b3": f"{TRACE}-{PARENT}-1"},
        {"traceparent": TRACEPARENT, "b3": f"{'1' * 32}-{'2' * 16}-1"},
    ],
    ids=["w3c", "b3 single", "b3 multi", "kafka connector", "bad w3c and b3", "w3c before b3"],
)
async def test_callers_context_is_known_however_it_is_written(
    sink: OtlpSink, headers: dict[str, str], endpoint: bool
) -> None:
    """W3C, B3 and the Kafka connector's header; with and without an exporter the log has the caller's trace."""
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url} if endpoint else {}
    async with run_function(SHOP, **env) as function:
        await call(function.port, "/price?item=tea", headers=headers)
        line = json.loads(await function.log_line("asked"))
        assert line["trace_id"] == TRACE
        spans = await spans_of(function, sink)
    assert {span.trace_id for span in spans} == ({TRACE} if endpoint else set())


@pytest.mark.parametrize(
    "headers",
    [
        {"traceparent": f"00-{'0' * 32}-{PARENT}-01"},
        {"traceparent": "x" * 5000},
        {"b3": "0"},
        {"b3": f"{'z' * 32}-{PARENT}-1"},
        {"X-B3-TraceId": TRACE},
        {"X-Kafka-Traceparent": "00-1-2-3"},
    ],
)
async def test_context_that_is_none_starts_a_new_trace(sink: OtlpSink, headers: dict[str, str]) -> None:
    """Rubbish in a header fails no call and names no trace."""
    async with traced(SHOP, sink) as function:
        assert (await call(function.port, "/price?item=tea", headers=headers)).status == 200
        spans = await spans_of(function, sink)
    (server,) = [span for span in spans if span.kind == "SERVER"]
    assert server.trace_id not in {TRACE, "0" * 32}


async def test_unsampled_caller_is_respected(sink: OtlpSink) -> None:
    """A trace that the caller does not record is not recorded here, and still logged."""
    async with traced(SHOP, sink) as function:
        unsampled = f"00-{TRACE}-{PARENT}-00"
        await call(function.port, "/price?item=tea", headers={"traceparent": unsampled})
        line = json.loads(await function.log_line("asked"))
        assert line["trace_id"] == TRACE
        assert await spans_of(function, sink) == []


async def test_context_goes_out_on_answers_that_are_called_back(sink: OtlpSink) -> None:
    """A callback carries the function's response headers and nothing else."""
    async with traced(SHOP, sink) as function:
        headers = {"traceparent": TRACEPARENT, "X-Callback-Url": "http://gateway/function/next"}
        answer = await call(function.port, "/price?item=tea", headers=headers)
        plain = await call(function.port, "/price?item=tea", headers={"traceparent": TRACEPARENT})
    assert (answer.header("traceparent") or "").startswith(f"00-{TRACE}-")
    assert plain.header("traceparent") is None


async def test_event_is_handled_in_the_senders_trace(sink: OtlpSink) -> None:
    """A pushed event has its one SERVER span and a span of its handling."""
    body = json.dumps({"id": "1", "amount": 2}).encode()
    headers = {
        "ce-specversion": "1.0",
        "ce-id": "e-1",
        "ce-source": "/shop",
        "ce-type": "order.created",
        "content-type": "application/json",
        "traceparent": TRACEPARENT,
    }
    async with traced(SHOP, sink) as function:
        answer = await call(function.port, "/", method="POST", headers=headers, body=body)
        assert answer.status == 204
        spans = await spans_of(function, sink)
    assert sorted(span.kind for span in spans) == ["INTERNAL", "SERVER"]
    assert {span.trace_id for span in spans} == {TRACE}
    assert json.loads(await function.log_line("created"))["trace_id"] == TRACE


async def test_failed_call_marks_its_spans(sink: OtlpSink) -> None:
    """The exception stands in the span it passed, and the SERVER span is an error."""
    async with traced(SHOP, sink) as function:
        assert (await call(function.port, "/fail?secret=x")).status == 500
        spans = await spans_of(function, sink)
    by_name = {span.name if span.kind != "SERVER" else "SERVER": span for span in spans}
    assert by_name["SERVER"].status == "ERROR"
    assert by_name["failing"].status == "ERROR"
    assert by_name["failing"].events[0].attributes["exception.type"] == "RuntimeError"


async def test_secrets_are_nowhere(sink: OtlpSink, tmp_path: Path) -> None:
    """A handler that lets every secret it holds go: none in logs, spans, metrics or answers."""
    canaries = {name: f"canary-{name}-4711" for name in ("file", "setting", "url", "header", "query", "cookie")}
    (tmp_path / "db-password").write_text(canaries["file"])
    env = {
        "FAAS_SECRETS_DIR": str(tmp_path),
        "SHOP_API_KEY": canaries["setting"],
        "SHOP_DB": f"postgres://app:{canaries['url']}@db/shop",
        "LOG_LEVEL": "DEBUG",
    }
    headers = {
        "Authorization": f"Token {canaries['header']}",
        "X-Api-Key": canaries["header"],
        "Cookie": f"theme=dark; session={canaries['cookie']}",
        "X-Call-Id": "call-canary",
    }
    paths = {
        f"/leak?token={canaries['query']}": 500,
        f"/fail?secret={canaries['query']}": 500,
        f"/fail?secret={canaries['file']}": 500,
        f"/price?token={canaries['query']}": 422,
        f"/price?item=tea&password={canaries['query']}": 200,
        f"/nowhere?api_key={canaries['query']}": 404,
    }
    async with traced(LEAKY, sink, **env) as function:
        answers = [await call(function.port, path, headers=headers) for path in paths]
        metrics = await call(function.metrics_port, "/metrics")
        spans = await spans_of(function, sink)
    assert [answer.status for answer in answers] == list(paths.values())
    _assert_all_was_let_go(function, spans)
    places = {
        "log": function.output(),
        "span": "\n".join(sink.raw),
        "metric": metrics.text,
        "answer": "\n".join(answer.text for answer in answers),
    }
    found = [(place, name) for place, text in places.items() for name in canaries if canaries[name] in text]
    assert found == []


def _assert_all_was_let_go(function: Process, spans: list[Span]) -> None:
    """Fail where a secret is absent because nobody wrote it: each place must show its mask."""
    lines = [line for line in function.logs() if line["message"].startswith("leak ")]
    assert {line["message"].split()[1] for line in lines} == {*LEAKS, "failed"}
    assert [line["message"] for line in lines if "***" not in json.dumps(line)] == []
    (leaking,) = [span for span in spans if span.name == "leaking"]
    assert {name for name, value in leaking.attributes.items() if "***" in str(value)} == {*LEAKS, "authorization"}
    assert ["***" in str(event.attributes["exception.message"]) for event in leaking.events] == [True]
    (crash,) = [line for line in function.logs() if line["message"].startswith("GET /leak failed")]
    assert "RuntimeError: crashed with" in crash["exception"]


async def test_collector_that_is_away_holds_nothing() -> None:
    """Neither calls nor the exit wait for it."""
    async with run_function(FORMS["handle"], OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9") as function:
        answers: list[Answer] = [await call(function.port, "/") for _ in range(20)]
        assert max(answer.seconds for answer in answers[1:]) < 1.0
        function.send_signal(signal.SIGTERM)
        assert await function.exited(timeout_seconds=8) == 0

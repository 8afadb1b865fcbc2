"""One call of image-processor, seen from outside: its trace, its logs, and no secret in either."""

from __future__ import annotations

import json
import signal

import pytest

from tests.otlp_sink import otlp_sink
from tests.pictures import encoded, photo
from tests.processes import run_function
from tests.staging import FUNCTIONS
from tests.wire import call

pytestmark = pytest.mark.anyio

CANARY = "canary-5ecr37-value"
HEADERS = {
    "X-Call-Id": "gateway-call-7",
    "Authorization": f"Bearer {CANARY}",
    "X-Api-Key": CANARY,
    "Cookie": f"sid={CANARY}",
}


async def test_call_is_one_trace_that_tells_no_secret() -> None:
    """Gateway call id, one SERVER span, cache, processing and storage: one trace id, in the logs as well."""
    settings = {"CACHE_PASSWORD": CANARY, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with otlp_sink() as sink:
        settings["OTEL_EXPORTER_OTLP_ENDPOINT"] = sink.url
        settings["OTEL_EXPORTER_OTLP_HEADERS"] = f"x-api-key={CANARY}"
        async with run_function(FUNCTIONS / "image-processor", **settings) as function:
            await function.ready()
            body = encoded(photo(), "JPEG")
            answer = await call(
                function.port, "/?op=resize:40x30&format=webp", method="POST", headers=HEADERS, body=body
            )
            refused = await call(function.port, f"/?op=paint&token={CANARY}", method="POST", headers=HEADERS, body=body)
            metrics = await call(function.metrics_port, "/metrics")
            function.send_signal(signal.SIGTERM)
            assert await function.exited() == 0
            logs = function.logs()
    assert (answer.status, refused.status) == (200, 422)
    server, _ = [span for span in sink.spans if span.kind == "SERVER"]
    assert server.attributes["faas.invocation_id"] == "gateway-call-7"
    mine = [span for span in sink.spans if span.trace_id == server.trace_id]
    assert {"cache.get", "image.process", "storage.put", "cache.set"} <= {span.name for span in mine}
    assert {span.parent_id for span in mine if span is not server} <= {span.span_id for span in mine}
    line = next(line for line in logs if line.get("call_id") == "gateway-call-7")
    assert line["trace_id"] == server.trace_id
    seen = [*sink.raw, json.dumps(logs), function.output(), *(a.body.decode() for a in (answer, refused, metrics))]
    assert [text for text in seen if CANARY in text] == []

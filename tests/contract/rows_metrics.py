"""Rows: the metrics that dashboards made for of-watchdog read."""

import re

from tests.contract.table import Call, Expected, Hold, Row

SOURCE = "of-watchdog metrics/metrics.go"


def _metrics(*lines: str) -> Call:
    together = "".join(rf"(?=[\s\S]*^{line}$)" for line in lines)
    return Call("/metrics", Expected(200, re.compile(together, re.MULTILINE)), to_metrics=True)


ROWS = (
    Row(
        "calls are counted and timed by status and lower-case method",
        SOURCE,
        (
            Call("/", Expected(200)),
            Call("/", Expected(200)),
            Call("/status/404", Expected(404)),
            Call("/", Expected(200), "POST"),
            _metrics(
                r'http_requests_total\{code="200",method="get"\} 2(\.0)?',
                r'http_requests_total\{code="404",method="get"\} 1(\.0)?',
                r'http_requests_total\{code="200",method="post"\} 1(\.0)?',
                r'http_request_duration_seconds_count\{code="200",method="get"\} 2(\.0)?',
                r'http_request_duration_seconds_bucket\{code="200",(.*,)?le="0.005"(,.*)?\} \d.*',
            ),
        ),
    ),
    Row(
        "probes are not counted",
        SOURCE,
        (
            Call("/_/health", Expected(200)),
            Call("/_/ready", Expected(200)),
            Call("/", Expected(200)),
            _metrics(r'http_requests_total\{code="200",method="get"\} 1(\.0)?'),
        ),
    ),
    Row(
        "calls in flight are shown, and 0 when there are none",
        SOURCE,
        (
            _metrics(r"http_requests_in_flight 0(\.0)?"),
            Hold(Call("/sleep?seconds=1.0", Expected(200)), 0.2),
            _metrics(r"http_requests_in_flight 1(\.0)?"),
        ),
    ),
    Row(
        "refused and timed out calls are counted as they were answered",
        SOURCE,
        (
            Hold(Call("/sleep?seconds=5", Expected(504, seconds=(0.9, 3.0))), 0.1),
            Call("/", Expected(429)),
            Call("/_/health", Expected(200)),
            Call("/_/ready", Expected(429)),
            _metrics(r'http_requests_total\{code="429",method="get"\} 1(\.0)?'),
        ),
        {"max_inflight": "1", "exec_timeout": "1s"},
    ),
    Row(
        "an unusual verb makes no new series",
        "promhttp: sanitizeMethod",
        (
            Call("/", Expected(405), "PROPFIND"),
            _metrics(r'http_requests_total\{code="405",method="unknown"\} 1(\.0)?'),
        ),
    ),
    Row(
        "nothing but metrics stands on the metrics port",
        SOURCE,
        (Call("/", Expected(404), to_metrics=True),),
    ),
)

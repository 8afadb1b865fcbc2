"""Rows: how long and how many."""

import re

from tests.contract.table import (
    CLOSED,
    DURATION,
    Call,
    Differs,
    Expected,
    Hold,
    Pause,
    Row,
    SlowBody,
)

PLATFORM = {"x-openfaas-internal": re.compile(".+")}
TIMED_OUT = Expected(504, headers={**PLATFORM, "x-duration-seconds": DURATION}, seconds=(0.25, 3.0))
SLEPT = Expected(200, "slept")
RUNNER = "of-watchdog executor/http_runner.go"
GET_TIMEOUT = "of-watchdog executor/http_runner.go: getTimeout"
LIMITER = "faas-middleware concurrency-limiter"
FULL = {"x-openfaas-internal": "faas-middleware"}
OURS_FULL = Expected(
    429,
    re.compile('"status": ?429'),
    {**FULL, "content-type": "application/problem+json", "retry-after": "1"},
)
WATCHDOG_FULL = Expected(
    429,
    "Concurrent request limit exceeded. Max concurrent requests: 1\n",
    {**FULL, "content-type": "text/plain", "retry-after": None},
)


def _sleep(seconds: float, expected: Expected | Differs[Expected], timeout: str = "") -> Call:
    headers = {"X-Timeout": timeout} if timeout else {}
    return Call(f"/sleep?seconds={seconds}&name=late", expected, headers=headers)


ROWS = (
    Row(
        "calls over max_inflight are refused at once",
        LIMITER,
        (
            Hold(_sleep(1.0, SLEPT)),
            Call("/", Differs(OURS_FULL, WATCHDOG_FULL)),
            _sleep(0.1, Expected(429, seconds=(0.0, 0.8))),
            Call("/_/health", Expected(200, "OK")),
        ),
        {"max_inflight": "1"},
        differs="the same status and mark, as problem details and with a Retry-After that queue workers honour",
    ),
    Row(
        "a place under max_inflight is free again after each call",
        LIMITER,
        (
            Hold(_sleep(0.8, SLEPT), 0.1),
            Call("/", Expected(429)),
            Pause(1.0),
            Hold(_sleep(5, TIMED_OUT, "300ms"), 1.0),
            Call("/", Expected(200)),
        ),
        {"max_inflight": "1"},
    ),
    Row(
        "a handler over exec_timeout is answered 504 and cancelled",
        RUNNER,
        (
            _sleep(5, TIMED_OUT),
            Call("/cancelled", Differs(Expected(200, '["late"]'), Expected(200, "[]"))),
            _sleep(0.1, SLEPT),
        ),
        {"exec_timeout": "300ms"},
        differs="of-watchdog hangs up on its function, and a plain uvicorn lets the handler run on to its end",
    ),
    Row(
        "exec_timeout counts in whole seconds without a unit",
        "of-watchdog config/config.go: parseIntOrDurationValue",
        (_sleep(5, Expected(504, seconds=(0.9, 3.0))),),
        {"exec_timeout": "1"},
    ),
    Row(
        "exec_timeout of 0 sets no limit",
        RUNNER,
        (_sleep(0.5, SLEPT),),
        {"exec_timeout": "0"},
    ),
    Row(
        "X-Timeout shortens exec_timeout",
        GET_TIMEOUT,
        (_sleep(5, TIMED_OUT, "300ms"), _sleep(0.1, SLEPT, "1s")),
        {"exec_timeout": "10s"},
    ),
    Row(
        "X-Timeout cannot lengthen exec_timeout, nor be nonsense",
        GET_TIMEOUT,
        (
            _sleep(5, TIMED_OUT, "1h"),
            _sleep(5, TIMED_OUT, "soon"),
            _sleep(5, TIMED_OUT, "5"),
            _sleep(5, TIMED_OUT, "\u00b5s"),
        ),
        {"exec_timeout": "300ms"},
    ),
    Row(
        "X-Timeout takes no plain number, unlike the settings",
        "time.ParseDuration",
        (_sleep(1.2, SLEPT, "1"),),
        {"exec_timeout": "5s"},
    ),
    Row(
        "X-Timeout of nothing",
        GET_TIMEOUT,
        (
            _sleep(0.8, Differs(TIMED_OUT, SLEPT), "0s"),
            _sleep(0.8, Differs(TIMED_OUT, SLEPT), "-1s"),
        ),
        {"exec_timeout": "300ms"},
        differs="in of-watchdog 0s and negative values switch the limit off: any caller could hold a function for good",
    ),
    Row(
        "write_timeout ends a call that has not been answered",
        "net/http Server.WriteTimeout",
        (_sleep(5, Differs(Expected(504, headers=PLATFORM, seconds=(0.4, 3.0)), CLOSED)),),
        {"write_timeout": "500ms", "exec_timeout": "10s"},
        differs="of-watchdog drops the connection, only when the function answers, and lets the handler run until then",
    ),
    Row(
        "write_timeout cuts a stream",
        "of-watchdog executor/http_runner.go: requiresStdlibProxy",
        (
            Call(
                "/stream?count=20&pause=0.2",
                CLOSED,
                headers={"Accept": "text/event-stream"},
            ),
        ),
        {"write_timeout": "1s"},
    ),
    Row(
        "exec_timeout does not cut a stream",
        "of-watchdog executor/http_runner.go: requiresStdlibProxy",
        (
            Call(
                "/stream?count=4&pause=0.3",
                Expected(200, re.compile("data: 3"), seconds=(1.0, 5.0)),
                headers={"Accept": "text/event-stream"},
            ),
        ),
        {"exec_timeout": "500ms"},
    ),
    Row(
        "a body that does not arrive within read_timeout",
        "net/http Server.ReadTimeout",
        (
            SlowBody("/in", Differs(Expected(408, seconds=(0.3, 3.0)), Expected(504, seconds=(0.3, 3.0)))),
            Call("/", Expected(200)),
        ),
        {"read_timeout": "500ms"},
        differs="the caller is at fault, and a 504 is retried by the queue worker",
    ),
    Row(
        "headers that do not arrive within read_timeout",
        "net/http Server.ReadTimeout",
        (
            Call("/", Differs(Expected(408, seconds=(0.3, 3.0)), CLOSED), raw=b"GET / HTTP/1.1\r\nHost:"),
            Call("/", Expected(200)),
        ),
        {"read_timeout": "500ms"},
        differs="the client is told why it is cut off",
    ),
)

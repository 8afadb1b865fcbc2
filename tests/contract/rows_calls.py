"""Rows: how a call reaches the function, and its answer the caller."""

import re

from tests.contract.table import (
    CLOSED,
    DURATION,
    EITHER,
    PRESENT,
    AskFirst,
    Call,
    Differs,
    Exits,
    Expected,
    LivesOn,
    Only,
    Row,
)

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
FUNCTION = {"x-function": "contract"}
CHUNKED = (
    b"POST /in HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n4;note=1\r\ndefg\r\n0\r\n\r\n"
)
RUNNER = "of-watchdog executor/http_runner.go"

ROWS = (
    Row(
        "path and query arrive as they were sent",
        RUNNER,
        (
            Call("/a/b?x=1&y=%20z&x=2", Expected(200, re.compile(r'"query":"x=1&y=%20z&x=2"'))),
            Call("/a/b?x=1", Expected(200, re.compile(r'"path":"/a/b"'))),
            Call("/?", Expected(200, re.compile(r'"path":"/"'))),
        ),
    ),
    Row(
        "a path that is not clean",
        "net/http ServeMux: cleanPath",
        (
            Call("//a", Differs(Expected(200), Expected(307, headers={"location": "/a"}))),
            Call("/a/../b", Differs(Expected(200), Expected(307, headers={"location": "/b"}))),
        ),
        differs="Go's router redirects such paths before the function sees them; a signed URL must arrive unchanged",
    ),
    Row(
        "every verb reaches the function",
        RUNNER,
        tuple(
            Call("/v", Expected(200, re.compile(f'"method":"{verb}"')), method=verb, body=b"x")
            for verb in ("POST", "PUT", "PATCH", "DELETE", "OPTIONS")
        ),
    ),
    Row(
        "HEAD answers with headers and no body",
        RUNNER,
        (Call("/v", Expected(200, body="", headers=FUNCTION), method="HEAD"),),
    ),
    Row(
        "headers arrive, the platform's among them",
        RUNNER,
        (
            Call(
                "/h",
                Expected(
                    200,
                    re.compile(
                        rf'(?=.*"x-call-id":"c-1")(?=.*"traceparent":"{TRACEPARENT}")(?=.*"x-start-time":"17")'
                        r'(?=.*"host":"shop.example")(?=.*"x-topic":"orders")'
                    ),
                ),
                headers={
                    "Host": "shop.example",
                    "X-Call-Id": "c-1",
                    "traceparent": TRACEPARENT,
                    "X-Start-Time": "17",
                    "X-Topic": "orders",
                },
            ),
        ),
    ),
    Row(
        "no encoding is asked for that the caller did not ask for",
        "net/http Transport: DisableCompression",
        (
            Call(
                "/h",
                Differs(
                    Expected(200, re.compile(r"^(?!.*accept-encoding)")),
                    Expected(200, re.compile(r'"accept-encoding":"gzip"')),
                ),
            ),
        ),
        differs="of-watchdog's client adds gzip and unpacks the answer again, which only costs CPU",
    ),
    Row(
        "bodies arrive whole, counted or chunked",
        RUNNER,
        (
            Call("/in", Expected(200, re.compile(r'"bytes":5,"text":"abcde"')), "POST", body=b"abcde"),
            Call("/in", Expected(200, re.compile(r'"bytes":7,"text":"abcdefg"')), "POST", raw=CHUNKED),
            Call("/in", Expected(200, re.compile(r'"bytes":1000000,')), "POST", body=b"z" * 1_000_000),
        ),
    ),
    Row(
        "Expect: 100-continue is met",
        RUNNER,
        (AskFirst("/in", Expected(200, re.compile(r'"text":"abc"')), b"abc"),),
    ),
    Row(
        "the function's own status and headers come back",
        RUNNER,
        (
            Call("/status/201", Expected(201, "as asked")),
            Call("/status/404", Expected(404, "as asked", {"x-openfaas-internal": None})),
            Call("/status/500", Expected(500, "as asked", {"x-openfaas-internal": None})),
            Call("/status/302", Expected(302, "as asked")),
            Call("/", Expected(200, headers=FUNCTION)),
        ),
    ),
    Row(
        "answers carry X-Duration-Seconds",
        RUNNER,
        (
            Call("/", Expected(200, headers={"x-duration-seconds": DURATION})),
            Call("/status/404", Expected(404, headers={"x-duration-seconds": DURATION})),
            Call(
                "/sleep?seconds=0.3",
                Expected(200, headers={"x-duration-seconds": re.compile(r"^(0\.(29|[3-9])|[1-9])")}),
            ),
        ),
    ),
    Row(
        "pieces are passed on at once to callers that accept a stream",
        "of-watchdog executor/http_runner.go: requiresStdlibProxy",
        tuple(
            Call(
                "/stream?count=3&pause=0.5",
                Expected(200, re.compile("data: 2"), first_piece_before=0.9, seconds=(1.4, 5.0)),
                headers={"Accept": accept},
            )
            for accept in ("text/event-stream", "text/html, application/x-ndjson")
        ),
    ),
    Row(
        "pieces of a stream that nobody announced",
        "of-watchdog#49",
        (
            Call(
                "/stream?count=3&pause=0.5",
                Differs(
                    Expected(200, first_piece_before=0.9, seconds=(1.4, 5.0)),
                    Expected(200, first_piece_after=1.4),
                ),
            ),
        ),
        differs="of-watchdog keeps them until 4 KiB or the end; here nothing stands between function and caller",
    ),
    Row(
        "a WebSocket is opened",
        RUNNER,
        (
            Call(
                "/socket",
                Expected(101, headers={"sec-websocket-accept": PRESENT}),
                headers={
                    "Connection": "Upgrade",
                    "Upgrade": "websocket",
                    "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
                },
            ),
        ),
    ),
    Row(
        "bytes that are not HTTP are refused",
        "net/http Server",
        (Call("/", Expected(400), raw=b"EHLO function\r\n\r\n"),),
    ),
    Row(
        "a function that dies takes the process with it",
        "of-watchdog executor/http_runner.go: cmd.Wait",
        (Call("/die/3", Differs(CLOSED, EITHER)), Exits(Differs(3, 1))),
        differs="the function is the process: its own exit status is what Kubernetes shows",
    ),
    Row(
        "a function that ends with 0",
        "of-watchdog executor/http_runner.go: cmd.Wait, ErrorHandler",
        (
            Call("/die/0", Differs(CLOSED, Expected(500, "", {"x-openfaas-internal": "of-watchdog"}))),
            Only("of-watchdog", LivesOn()),
            Only("of-watchdog", Call("/", Expected(500, "", {"x-openfaas-internal": "of-watchdog"}))),
            Only("of-watchdog", Call("/", Expected(200, ""), headers={"Accept": "text/event-stream"})),
            Only("of-watchdog", Call("/_/health", Expected(200, "OK"))),
            Only("ours", Exits(0)),
        ),
        differs="of-watchdog stays healthy in front of nothing, and answers streaming callers an empty 200",
    ),
    Row(
        "a log line longer than 64 KiB",
        "of-watchdog#99 #100 #105",
        (
            Call("/log?bytes=700000", Differs(Expected(200, "logged"), Expected(504))),
            Call("/", Differs(Expected(200), Expected(504))),
            Call("/_/health", Expected(200, "OK")),
        ),
        {"log_buffer_size": None, "exec_timeout": "1s"},
        differs="with its default log_buffer_size of-watchdog stops reading, and the function hangs at its next line",
    ),
)

"""Rows: what the probes of Kubernetes and the gateway see."""

from tests.contract.table import (
    Call,
    Differs,
    Expected,
    Hold,
    LockFile,
    Pause,
    Remove,
    Row,
    Write,
)

OK = Expected(200, body="OK")
UNHEALTHY = Expected(503)
READY = Expected(200)
NOT_READY = Expected(503)
REFUSED_VERB = Expected(405)
SLEEP = Call("/sleep?seconds=1.0", Expected(200, body="slept"))
MUX = "of-watchdog pkg/watchdog.go: routes; net/http ServeMux"

ROWS = (
    Row(
        "health says OK to GET and refuses other verbs",
        "of-watchdog pkg/watchdog.go: makeHealthHandler",
        (
            Call("/_/health", OK),
            Call("/_/health?from=kubelet", OK),
            Call("/_/health", REFUSED_VERB, method="POST"),
            Call("/_/health", REFUSED_VERB, method="HEAD"),
            Call("/_/health", REFUSED_VERB, method="DELETE"),
        ),
    ),
    Row(
        "ready answers GET and refuses other verbs",
        "of-watchdog pkg/readiness.go",
        (
            Call("/_/ready", READY),
            Call("/_/ready", REFUSED_VERB, method="POST"),
            Call("/_/ready", REFUSED_VERB, method="HEAD"),
        ),
    ),
    Row(
        "only the two exact paths are the platform's",
        MUX,
        (
            Call("/_/health/", Expected(200, headers={"x-function": "contract"})),
            Call("/_/other", Expected(200, headers={"x-function": "contract"})),
            Call("/metrics", Expected(200, headers={"x-function": "contract"})),
        ),
    ),
    Row(
        "health needs the lock file",
        "of-watchdog pkg/watchdog.go: lockFilePresent; exec probes of older charts look for the file",
        (
            LockFile(True),
            Remove(".lock"),
            Call("/_/health", UNHEALTHY),
            Call("/_/ready", NOT_READY),
            Call("/", Expected(200)),
            Write(".lock"),
            Call("/_/health", OK),
            Call("/_/ready", READY),
        ),
    ),
    Row(
        "ready is 429 while max_inflight is met, and health is not",
        "of-watchdog pkg/readiness.go: LimitMet",
        (
            Hold(SLEEP),
            Call("/_/ready", Expected(429)),
            Call("/_/health", OK),
        ),
        {"max_inflight": "1"},
    ),
    Row(
        "ready asks the function at ready_path, past the limiter",
        "of-watchdog pkg/readiness.go: endpoint",
        (
            Call("/_/ready", NOT_READY),
            Call("/_/health", OK),
            Write("ready"),
            Call("/_/ready", READY),
            Remove("ready"),
            Call("/_/ready", NOT_READY),
        ),
        {"ready_path": "/readiness", "max_inflight": "5"},
    ),
    Row(
        "suppress_lock leaves the lock file to others",
        "of-watchdog pkg/watchdog.go: suppress_lock",
        (
            Pause(0.5),
            LockFile(False),
            Call("/_/health", Differs(OK, UNHEALTHY)),
            Write(".lock"),
            Call("/_/health", OK),
        ),
        {"suppress_lock": "true"},
        differs="of-watchdog writes no lock and still wants one: it never gets healthy where nobody else writes it",
    ),
)

"""Rows: from a signal to the end."""

from tests.contract.table import (
    CLOSED,
    Call,
    Differs,
    Exits,
    Expected,
    Hold,
    LivesOn,
    LockFile,
    Pause,
    Row,
    Signal,
)

DRAIN = "of-watchdog pkg/watchdog.go: listenUntilShutdown"
SLEPT = Expected(200, "slept", seconds=(0.0, 9.0))

ROWS = (
    Row(
        "SIGTERM makes it unhealthy at once, and calls go on for healthcheck_interval",
        DRAIN,
        (
            LockFile(True),
            Signal("SIGTERM"),
            LockFile(False),
            Call("/_/health", Expected(503)),
            Call("/_/ready", Expected(503)),
            Call("/", Expected(200)),
            Pause(0.4),
            Call("/", Expected(200)),
            LivesOn(),
            Exits(0, seconds=(1.45, 5.0)),
        ),
        {"healthcheck_interval": "1500ms"},
    ),
    Row(
        "a call that is longer than the window is finished",
        DRAIN,
        (
            Hold(Call("/sleep?seconds=1.5", SLEPT)),
            Signal("SIGTERM"),
            Exits(0, seconds=(1.2, 5.0)),
        ),
        {"healthcheck_interval": "500ms", "write_timeout": "5s"},
    ),
    Row(
        "a call taken in the window is finished after it",
        DRAIN,
        (
            Signal("SIGTERM"),
            Hold(Call("/sleep?seconds=1.5", SLEPT), 0.0),
            Exits(0, seconds=(1.4, 5.0)),
        ),
        {"healthcheck_interval": "500ms", "write_timeout": "5s"},
    ),
    Row(
        "what is longer than window and write_timeout together is cut",
        DRAIN,
        (
            Hold(Call("/stream?count=100&pause=0.1", CLOSED, headers={"Accept": "text/event-stream"})),
            Signal("SIGTERM"),
            Exits(0, seconds=(0.5, 5.0)),
        ),
        {"healthcheck_interval": "500ms", "write_timeout": "1s", "exec_timeout": "1s"},
    ),
    Row(
        "after the window nobody is let in",
        DRAIN,
        (
            Hold(Call("/sleep?seconds=2.5", SLEPT)),
            Signal("SIGTERM"),
            Pause(1.0),
            LivesOn(),
            Call("/", CLOSED),
            Exits(0),
        ),
        {"healthcheck_interval": "500ms", "write_timeout": "5s"},
    ),
    Row(
        "a second SIGTERM changes nothing",
        DRAIN,
        (
            Signal("SIGTERM"),
            Pause(0.2),
            Signal("SIGTERM"),
            Call("/", Expected(200)),
            Exits(0, seconds=(0.4, 4.0)),
        ),
        {"healthcheck_interval": "1s"},
    ),
    Row(
        "SIGINT, the developer's Ctrl-C, has no window and finishes what runs",
        "of-watchdog pkg/watchdog.go: signal.Notify of SIGTERM only",
        (
            Hold(Call("/sleep?seconds=0.6", Differs(SLEPT, CLOSED))),
            Signal("SIGINT"),
            Exits(Differs(0, -2), seconds=Differs((0.3, 4.0), (0.0, 2.0))),
        ),
        {"healthcheck_interval": "5s"},
        differs="of-watchdog is killed by it and leaves its function behind",
    ),
)

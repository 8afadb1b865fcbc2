"""
``python -m faasbase.healthcheck``: ask the function in this container for its health, as an exec probe does.

Exits 0 where ``/_/health`` answers 200 within a second, else 1 with a line that says why.  A probe starts Python every
few seconds, so this imports next to nothing.
"""

from __future__ import annotations

import os
import socket
import sys
import time

DEADLINE_SECONDS = 1.0
REQUEST = b"GET /_/health HTTP/1.1\r\nHost: localhost\r\nUser-Agent: kube-probe/exec\r\nConnection: close\r\n\r\n"


def main() -> None:
    """Print the answer, and exit as a probe has to."""
    try:
        status = ask(os.environ.get("LISTEN_HOST") or "127.0.0.1", int(os.environ.get("port") or 8080))  # noqa: SIM112
    except (OSError, ValueError) as exc:
        sys.exit(f"no answer: {exc}")
    sys.exit(None if status == "200" else f"unhealthy: {status}")


def ask(host: str, port: int) -> str:
    """Return the status of ``/_/health``; raise `OSError` where none comes in time."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    with socket.create_connection((host, port), timeout=DEADLINE_SECONDS / 2) as connection:
        connection.settimeout(max(0.001, deadline - time.monotonic()))
        connection.sendall(REQUEST)
        head = connection.recv(64).decode("latin-1").split(" ")
    if len(head) < 2:
        raise OSError("the connection was closed")
    return head[1]


if __name__ == "__main__":
    main()

"""The exec probe: a command in the container that says whether the function is healthy."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.processes import free_port, run_function
from tests.staging import BASE

HELLO = """
async def handle() -> str:
    return "hello"
"""


def probe(port: object) -> subprocess.CompletedProcess[str]:
    """Run the command as a kubelet does, on *port*."""
    return subprocess.run(
        [sys.executable, "-m", "faasbase.healthcheck"],
        env={"port": str(port), "PYTHONPATH": str(BASE)},
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )


@pytest.fixture
def mute_port() -> Iterator[int]:
    """Listen, and close each connection without an answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def close_each() -> None:
            try:
                while True:
                    listener.accept()[0].close()
            except OSError:
                return

        thread = threading.Thread(target=close_each)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_healthy_function_passes() -> None:
    """Status 0 and no word, from the first moment that the function listens."""
    with run_function(HELLO) as function:
        done = probe(function.port)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_function_that_stops_fails() -> None:
    """After SIGTERM the probe says what the health route says."""
    with run_function(HELLO, healthcheck_interval="3s") as function:
        function.send_signal(signal.SIGTERM)
        function.lock_file.unlink(missing_ok=True)
        done = probe(function.port)
        assert done.returncode == 1
        assert done.stderr == "unhealthy: 503\n"


@pytest.mark.parametrize("port", ["nobody listens", "nonsense", "70000"])
def test_nothing_there_fails(port: str) -> None:
    """Status 1 and one line, whatever the reason."""
    done = probe(free_port() if port == "nobody listens" else port)
    assert done.returncode == 1
    assert done.stderr.startswith("no answer: ")
    assert done.stderr.count("\n") == 1


def test_closed_connection_fails(mute_port: int) -> None:
    """Something that takes connections and says nothing is not healthy."""
    done = probe(mute_port)
    assert done.returncode == 1
    # Closed before or after the request has arrived: the kernel's word is another one then.
    assert done.stderr.startswith("no answer: ")


def test_it_imports_next_to_nothing() -> None:
    """A probe every few seconds must not cost the pod its processor."""
    code = "import sys; before = set(sys.modules); import faasbase.healthcheck; print(*set(sys.modules) - before)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(BASE)}, capture_output=True, text=True, check=True
    )
    assert {"asyncio", "fastapi", "http", "json", "logging", "ssl", "threading"}.isdisjoint(done.stdout.split())

"""Start a container of an image as a pod does, and take its times and its memory."""

from __future__ import annotations

import http.client
import json
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial

from deploy.images.engine import Engine
from deploy.images.pods import empty_dir, pod_options, remove

from .candidates import Candidate

PORT = 8080
START_SECONDS = 60.0
CALL_SECONDS = 10.0
POLL_SECONDS = 0.01
SETTLE_SECONDS = 1.0
CLIENTS = 4
LIMITS = {"cpu": "1000m", "memory": "256Mi"}
BODY = b'{"name": "Ada"}'
GREETING = {"message": "Hello, Ada!"}
# Runs in the container: CPU seconds and resident bytes of all its processes but this one (proc(5), stat and statm).
USED = """
import os, pathlib
others = [path for path in pathlib.Path("/proc").glob("[0-9]*") if path.name != str(os.getpid())]
ticks = sum(int(field) for path in others for field in (path / "stat").read_text().rpartition(") ")[2].split()[11:15])
pages = sum(int((path / "statm").read_text().split()[1]) for path in others)
print(ticks / os.sysconf("SC_CLK_TCK"), pages * os.sysconf("SC_PAGE_SIZE"))
"""


@dataclass(frozen=True)
class Sample:
    """One life of a container: seconds since its start was asked for, and bytes that its processes hold."""

    engine_seconds: float
    """What the engine's own command took."""
    healthy_seconds: float
    answer_seconds: float
    start_cpu_seconds: float
    """What the start took of a processor: the measure that neighbours on this machine disturb least."""
    memory_bytes: int
    memory_after_calls_bytes: int


@contextmanager
def pod(engine: Engine, image: str) -> Iterator[tuple[str, str]]:
    """Hold a network as a pod's pause container does, so that its address is known before a container starts in it."""
    name = f"bench-{os.getpid()}-pod"
    try:
        engine.run("run", "--detach", "--name", name, "--network", "bridge", image, "sleep", "infinity")
        networks = engine.inspect(name)["NetworkSettings"]["Networks"]
        yield name, next(network["IPAddress"] for network in networks.values())
    finally:
        remove(engine, name)


def measure(engine: Engine, candidate: Candidate, holder: str, address: str, calls: int) -> Sample:
    """Run *candidate* once, in the network of *holder*, and remove it."""
    name = f"bench-{os.getpid()}-function"
    with empty_dir() as tmp:
        options = pod_options(engine, name, tmp, limits=LIMITS, network=f"container:{holder}")
        try:
            engine.run("create", *options, "--user", candidate.user, candidate.image)
            return _measured(engine, name, address, calls)
        finally:
            remove(engine, name)


def _measured(engine: Engine, name: str, address: str, calls: int) -> Sample:
    with ThreadPoolExecutor(3) as pool:
        asked = time.monotonic()
        started = pool.submit(_first, asked, partial(_starts, engine, name))
        healthy = pool.submit(_first, asked, partial(_healthy, address))
        answer = pool.submit(_first, asked, partial(_greets, address))
        seconds = started.result(), healthy.result(), answer.result()
    time.sleep(SETTLE_SECONDS)
    cpu_seconds, memory_bytes = _used(engine, name)
    call_many(address, calls)
    time.sleep(SETTLE_SECONDS)
    return Sample(*seconds, cpu_seconds, memory_bytes, _used(engine, name)[1])


def call_many(address: str, calls: int) -> None:
    """Make *calls* over a few connections that are kept; raise where one is not answered with the greeting."""
    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(_call_repeatedly, address, calls // CLIENTS) for _ in range(CLIENTS)]:
            done.result()


def _call_repeatedly(address: str, calls: int) -> None:
    with _connection(address) as connection:
        for _ in range(calls):
            if not _greeted(connection):
                raise RuntimeError(f"{address} did not greet")


def _first(since: float, works: Callable[[], bool]) -> float:
    """Return the seconds from *since* until *works* says so for the first time."""
    while not _succeeds(works):
        if time.monotonic() - since > START_SECONDS:
            raise TimeoutError(f"nothing after {START_SECONDS:.0f} s")
        time.sleep(POLL_SECONDS)
    return time.monotonic() - since


def _succeeds(works: Callable[[], bool]) -> bool:
    try:
        return works()
    except (OSError, http.client.HTTPException):
        return False


def _starts(engine: Engine, name: str) -> bool:
    return bool(engine.run("start", name))


def _healthy(address: str) -> bool:
    with _connection(address) as connection:
        connection.request("GET", "/_/health")
        return connection.getresponse().status == 200


def _greets(address: str) -> bool:
    with _connection(address) as connection:
        return _greeted(connection)


def _greeted(connection: http.client.HTTPConnection) -> bool:
    connection.request("POST", "/", body=BODY, headers={"Content-Type": "application/json"})
    response = connection.getresponse()
    text = response.read()
    return response.status == 200 and bool(json.loads(text) == GREETING)


def _connection(address: str) -> closing[http.client.HTTPConnection]:
    return closing(http.client.HTTPConnection(address, PORT, timeout=CALL_SECONDS))


def _used(engine: Engine, name: str) -> tuple[float, int]:
    cpu_seconds, resident_bytes = engine.run("exec", name, "python3", "-c", USED).split()
    return float(cpu_seconds), int(resident_bytes)

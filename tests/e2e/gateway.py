"""
A gateway and webhook of the tests' own: takes what functions in containers send, and keeps it.

``with gateway() as made`` listens as long as the block lasts; containers reach it at `host_address` and its port.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from deploy.images.engine import Engine, EngineError

JOIN_SECONDS = 5.0


@dataclass(frozen=True)
class Posted:
    """A request as it came; names of *headers* are in lower case."""

    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Gateway:
    """Where it listens, and what it was sent."""

    port: int
    taken: list[Posted] = field(default_factory=list)


@contextlib.contextmanager
def gateway() -> Iterator[Gateway]:
    """Answer 202 to whatever is posted, as the gateway does that queues a call."""
    # On every address: the bridge of the containers may not be there before the first of them.
    server = ThreadingHTTPServer(("0.0.0.0", 0), BaseHTTPRequestHandler)
    made = Gateway(server.server_port)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            made.taken.append(Posted(self.path, headers, self.rfile.read(int(headers["content-length"]))))
            self.send_response(202)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: `Gateway.taken` tells it."""

    server.RequestHandlerClass = Handler
    thread = threading.Thread(target=server.serve_forever, name="gateway", daemon=True)
    thread.start()
    try:
        yield made
    finally:
        server.shutdown()
        server.server_close()
        thread.join(JOIN_SECONDS)


def host_address(engine: Engine) -> str:
    """Return the address at which containers of the engine's default network reach this machine."""
    told = engine.run("network", "inspect", "podman" if engine.program == "podman" else "bridge")
    found = re.search(r'"gateway": *"([\d.]+)"', told, re.IGNORECASE)
    if found is None:
        raise EngineError(f"the default network has no gateway: {told}")
    return found[1]

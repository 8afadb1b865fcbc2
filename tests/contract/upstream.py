"""
Serve ``function/handler.py`` for of-watchdog with plain uvicorn, draining as the official Go template does.

The rows are about of-watchdog, so nothing of this project's server takes part here.
"""

import asyncio
import os
import signal
import socket
from urllib.parse import urlsplit

SETTINGS = os.environ

listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("127.0.0.1", urlsplit(SETTINGS["upstream_url"]).port or 0))
listener.listen(2048)

import uvicorn  # noqa: E402  # calls that arrive during the imports wait at the listening socket
from function.handler import app  # type: ignore[attr-defined]  # noqa: E402


def parse(duration: str) -> float:
    """Return the seconds of ``500ms`` or ``1s``."""
    return float(duration[:-2]) / 1000 if duration.endswith("ms") else float(duration.removesuffix("s"))


class Server(uvicorn.Server):
    """A server that goes on for the drain window after SIGTERM."""

    def handle_exit(self, sig: int, frame: object) -> None:
        """Ask for the end once the window is over."""
        asyncio.get_running_loop().call_later(parse(SETTINGS["healthcheck_interval"]), self._end)

    def _end(self) -> None:
        self.should_exit = True


signal.signal(signal.SIGTERM, signal.SIG_IGN)
Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])

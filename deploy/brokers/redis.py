"""A redis-server without a password, its data in memory: what the samples beside the brokers keep their records in."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

from .processes import Server, ServerError, reserve_port

ANSWER_SECONDS = 2.0


class RedisServer(Server):
    """A Redis of its caller's own, with its files in *folder*."""

    name = "Redis"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = reserve_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def _command(self) -> list[str]:
        program = shutil.which("redis-server")
        if program is None:
            raise ServerError("there is no redis-server: .ci/install test")
        fixed = {"port": self.port, "bind": "127.0.0.1", "dir": self.folder, "save": "", "appendonly": "no"}
        return [program, *(word for name, value in fixed.items() for word in (f"--{name}", str(value)))]

    def _answers(self) -> bool:
        with socket.create_connection(("127.0.0.1", self.port), timeout=ANSWER_SECONDS) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")

"""
Real servers for tests, one controller each: started on a port that the system picks, stopped by process id.

``with RedisServer(folder) as server`` gives one that answers; it can be stopped and started again on the same port,
paused, filled up, and given other passwords while it runs.
"""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.brokers.processes import Server, reserve_port


class RedisServer(Server):
    """
    A redis-server of the test's own, with its files in *folder*.

    With *password* the default user is off and ``app`` signs in with it; *tls* is the paths of certificate and key.
    """

    name = "Redis"

    def __init__(
        self,
        folder: Path,
        *,
        password: str | None = None,
        tls: tuple[Path, Path] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        super().__init__(folder)
        self._password, self._tls, self._arguments = password, tls, arguments
        self.port = reserve_port()

    @property
    def url(self) -> str:
        return f"{'rediss' if self._tls else 'redis'}://127.0.0.1:{self.port}/0"

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    def command(self, *words: str | bytes | int) -> str:
        """Run one command as the administrator and return the reply's text."""
        with socket.create_connection(self.address, timeout=5) as plain, self._secured(plain) as connection:
            return _ask(connection, ("AUTH", "admin", "admin"), words)

    def set_passwords(self, *passwords: str) -> None:
        """Let ``app`` sign in with any of *passwords* and no other; connections stay as they are."""
        self.command("ACL", "SETUSER", "app", "resetpass", *(f">{password}" for password in passwords))

    def hang_up(self) -> None:
        """Cut the connections of all others."""
        self.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def fill_up(self) -> None:
        """Take no more values from now on: reading and deleting go on."""
        self.command("CONFIG", "SET", "maxmemory-policy", "noeviction")
        self.command("CONFIG", "SET", "maxmemory", "1")

    def make_room(self) -> None:
        self.command("CONFIG", "SET", "maxmemory", "0")

    def calls(self, command: str) -> int:
        """Return how often *command* was executed, commands of scripts included."""
        prefix = f"cmdstat_{command.lower()}:calls="
        for line in self.command("INFO", "commandstats").splitlines():
            if line.startswith(prefix):
                return int(line.removeprefix(prefix).split(",")[0])
        return 0

    def _command(self) -> list[str]:
        return [shutil.which("redis-server") or "/usr/bin/redis-server", *self._settings(), *self._arguments]

    def _answers(self) -> bool:
        return self.command("PING").startswith("PONG")

    def _settings(self) -> Iterator[str]:
        port = ("--port", "0", "--tls-port", str(self.port)) if self._tls else ("--port", str(self.port))
        yield from (*port, "--bind", "127.0.0.1", "--dir", str(self.folder), "--save", "", "--appendonly", "no")
        yield from ("--user", "admin", "on", ">admin", "~*", "&*", "+@all")
        if self._password is None:
            yield from ("--user", "app", "on", "nopass", "~*", "&*", "+@all")
        else:
            yield from ("--user", "app", "on", f">{self._password}", "~*", "&*", "+@all")
            yield from ("--user", "default", "off")
        if self._tls:
            certificate, key = self._tls
            yield from ("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-auth-clients", "no")

    @contextmanager
    def _secured(self, plain: socket.socket) -> Iterator[socket.socket]:
        if not self._tls:
            yield plain
            return
        import ssl

        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(plain) as wrapped:
            yield wrapped


def _ask(connection: socket.socket, *commands: tuple[str | bytes | int, ...]) -> str:
    """Send *commands* and return the text of the last one's reply, a line or a string of several."""
    with connection.makefile("rwb") as stream:
        reply = ""
        for command in commands:
            words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
            stream.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words))
            stream.flush()
            head = stream.readline().decode()
            if head.startswith("-"):
                raise ConnectionError(head.strip())
            reply = head[1:].strip()
            if head.startswith("$") and reply != "-1":
                reply = stream.read(int(reply) + 2).decode(errors="replace")[:-2]
        return reply

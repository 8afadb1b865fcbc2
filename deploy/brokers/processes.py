"""
The life of a server process: started on ports that nobody else is given, waited for, stopped by its process id.

A server is silent until `Server.start` has returned; its output is in ``output`` of its folder, and its end in the
message of every `ServerError`.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

START_SECONDS = 60.0
STOP_SECONDS = 15.0
LOOK_SECONDS = 0.02
SHOWN_CHARACTERS = 3000


class ServerError(Exception):
    """A server does not start, or does not do what it was told; the message has its last lines."""


class Server(ABC):
    """A server with its files in *folder*; ``with`` gives one that answers, and kills it at the end."""

    name: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._shown_from = 0
        folder.mkdir(parents=True, exist_ok=True)

    @property
    @abstractmethod
    def url(self) -> str:
        """The address for clients, without user and password."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """Return the command of the next start; what it needs on disk is there when this returns."""

    @abstractmethod
    def _answers(self) -> bool:
        """Tell whether the server takes requests now; an `OSError` says no."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._started.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, also again after `stop` or `kill`, and wait until it answers."""
        self.launch()
        self.wait()

    def launch(self, prefix: Sequence[str] = ()) -> None:
        """Start it, by the program *prefix* if given, and return at once; `wait` has to follow."""
        command = self._command()
        with self._log.open("ab") as output:
            self._shown_from = output.tell()
            self._process = subprocess.Popen(
                [*prefix, *command],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C in a terminal goes to those who use the server: they end first.
                start_new_session=True,
            )

    def wait(self) -> None:
        """Wait until it answers; one that does not is killed and raises `ServerError`."""
        until = time.monotonic() + START_SECONDS
        try:
            while time.monotonic() < until and self.running:
                if self._answers_now():
                    return
                time.sleep(LOOK_SECONDS)
            raise ServerError(f"{self.name} does not answer:\n{self.output()[-SHOWN_CHARACTERS:]}")
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Ask it to end and wait for that: it writes what it holds."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it whatever it does, paused too."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Stop it and start it again, on the same ports and with its data."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Let it answer nothing, while the kernel goes on taking connections for it."""
        self._started.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._started.send_signal(signal.SIGCONT)

    def output(self) -> str:
        """Return what it has written since it was last started."""
        return self._log.read_bytes()[self._shown_from :].decode(errors="replace")

    def resident_bytes(self) -> int:
        """Return the resident memory of the process."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))

    @property
    def _log(self) -> Path:
        return self.folder / "output"

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ServerError(f"{self.name} is not started")
        return self._process

    def _answers_now(self) -> bool:
        try:
            return self._answers()
        except OSError:
            return False

    def _end(self, number: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.send_signal(number)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_SECONDS)


def reserve_port() -> int:
    """
    Return a port of loopback that the system gives to nobody else for a minute.

    A server can bind it meanwhile, by SO_REUSEADDR: what keeps it from others is a closed connection in TIME_WAIT.
    """
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        with socket.create_connection(listener.getsockname(), timeout=5) as client:
            accepted, _ = listener.accept()
            # The side that closes first is the one that lingers.
            accepted.close()
            client.recv(1)
        return int(listener.getsockname()[1])

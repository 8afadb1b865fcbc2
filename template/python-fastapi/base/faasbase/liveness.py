"""
Answer health probes while the event loop cannot: during start, and when a handler blocks it.

A thread watches the loop's heartbeat.  Once that is late it accepts on the same listening socket, peeks at each
connection, answers `GET /_/health` itself and hands every other connection to the loop for when it is free again.
Kubernetes would otherwise kill a pod for being busy.  Code that holds the interpreter lock in C is beyond this.
"""

from __future__ import annotations

import contextlib
import logging
import resource
import select
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from .lifecycle import Lifecycle

Adopt = Callable[[socket.socket], None]

logger = logging.getLogger(__name__)

BACKLOG = 2048
"""Connections that the kernel holds for the process, as uvicorn has it."""
LATE_AFTER_SECONDS = 0.6
_REPORT_AFTER_SECONDS = 1.0
_TICK_SECONDS = 0.1
_PATIENCE_SECONDS = 2.0
_ACCEPT_BATCH = 64
# Beyond this, and beyond a quarter of the descriptors that the process may have, the kernel's backlog holds callers.
_MAX_HELD = 4096
_PROBE = b"GET /_/health "
_PACKAGE = str(Path(__file__).parent)


class LivenessGuard:
    """The thread, its heartbeat and the connections that it holds for the loop."""

    def __init__(self, listener: socket.socket, lifecycle: Lifecycle) -> None:
        # A descriptor of its own: the loop closes the other one when it stops accepting.
        self._listener = listener.dup()
        self._listener.setblocking(False)
        self._lifecycle = lifecycle
        self._adopt: Adopt | None = None
        self._last_beat = float("-inf")
        self._unread: dict[int, tuple[socket.socket, float]] = {}
        """Accepted and not known yet to be a probe or not, by descriptor, with the time of arrival."""
        self._resting: set[int] = set()
        """Part of a probe has come on these: they are left out of one poll, which would else return at once."""
        self._calls: list[socket.socket] = []
        """Known to be no probe, until the loop can take them."""
        self._untaken = 0
        self._max_held = min(_MAX_HELD, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        self._stopped = threading.Event()
        self._loop_thread = threading.get_ident()
        self._reported_at: float | None = None
        self._thread = threading.Thread(target=self._run, name="liveness", daemon=True)

    def start(self) -> None:
        """Begin to answer; until `attach`, the loop counts as late."""
        self._thread.start()

    def attach(self, adopt: Adopt) -> None:
        """From now on the loop serves: *adopt*, safe to call from any thread, takes connections over."""
        self.beat()
        self._adopt = adopt

    def beat(self) -> None:
        """Tell that the loop turns; called by the loop several times within `LATE_AFTER_SECONDS`."""
        self._last_beat = time.monotonic()

    def taken(self) -> None:
        """Tell that the loop has taken one connection over."""
        self._untaken -= 1

    def stop(self) -> None:
        """
        End the thread and stop listening; what it still holds goes to the loop.

        So does what has connected and waits in the kernel: closing the listener, whose last descriptor this is, would
        reset it.
        """
        self._stopped.set()
        self._thread.join(2.0)
        with contextlib.suppress(OSError):
            self._accept(BACKLOG)
        self._pass_on(older_than=0.0)
        self._listener.close()

    def _run(self) -> None:
        while not self._stopped.is_set():
            attached = self._adopt is not None
            late = time.monotonic() - self._last_beat
            if late < LATE_AFTER_SECONDS:
                self._pass_on(older_than=0.0)
                self._report_recovery()
                self._stopped.wait(_TICK_SECONDS)
                continue
            try:
                self._serve_once()
            except OSError:
                # Descriptors may have run out, or a client left in between; the next turn tries again.
                self._stopped.wait(_TICK_SECONDS)
            if attached and late >= _REPORT_AFTER_SECONDS:
                self._report_block(late)

    def _serve_once(self) -> None:
        poll = select.poll()
        for descriptor in self._unread.keys() - self._resting:
            poll.register(descriptor, select.POLLIN)
        self._resting.clear()
        if len(self._unread) + len(self._calls) + self._untaken < self._max_held:
            poll.register(self._listener, select.POLLIN)
        for descriptor, _ in poll.poll(_TICK_SECONDS * 1000):
            if descriptor == self._listener.fileno():
                self._accept(_ACCEPT_BATCH)
            else:
                self._answer_or_keep(descriptor)
        # Connections that show nothing must not crowd out probes.
        self._pass_on(older_than=_PATIENCE_SECONDS)

    def _accept(self, at_most: int) -> None:
        with contextlib.suppress(BlockingIOError):
            for _ in range(at_most):
                sock, _ = self._listener.accept()
                sock.setblocking(False)
                self._unread[sock.fileno()] = (sock, time.monotonic())

    def _answer_or_keep(self, descriptor: int) -> None:
        sock, _ = self._unread[descriptor]
        try:
            seen = sock.recv(4096, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError:
            seen = b""
        if _PROBE.startswith(seen[: len(_PROBE)]) and seen and b"\r\n\r\n" not in seen:
            self._resting.add(descriptor)
            return
        del self._unread[descriptor]
        if not seen:
            sock.close()
        elif seen.startswith(_PROBE):
            self._answer(sock, len(seen))
        else:
            self._calls.append(sock)

    def _answer(self, sock: socket.socket, length: int) -> None:
        status, body = ("200 OK", "OK") if self._lifecycle.healthy else ("503 Service Unavailable", "")
        head = (
            f"HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        with contextlib.suppress(OSError), sock:
            sock.recv(length)
            sock.send((head + body).encode("ascii"))

    def _pass_on(self, *, older_than: float) -> None:
        """Give the loop every call, and what has been here for *older_than* seconds without saying what it is."""
        now = time.monotonic()
        for descriptor, (sock, since) in list(self._unread.items()):
            if now - since >= older_than:
                del self._unread[descriptor]
                self._calls.append(sock)
        if self._adopt is None:
            return
        calls, self._calls = self._calls, []
        for sock in calls:
            self._untaken += 1
            self._adopt(sock)

    def _report_block(self, late: float) -> None:
        if self._reported_at is None:
            self._reported_at = time.monotonic() - late
            where = _blocking_frame(self._loop_thread)
            self._log("event loop blocked for %.1f s at %s: calls wait until it is free", late, where)

    def _report_recovery(self) -> None:
        if self._reported_at is not None:
            blocked, self._reported_at = time.monotonic() - self._reported_at, None
            self._log("event loop free again after %.1f s", blocked)

    def _log(self, message: str, *args: object) -> None:
        # In a thread of its own: what blocks the loop may be a log line that nobody reads, and holds the log's lock.
        threading.Thread(target=logger.warning, args=(message, *args), name="liveness-log", daemon=True).start()


def _blocking_frame(thread: int) -> str:
    """Name the innermost frame of *thread* that is the user's, or else the innermost of all."""
    frame = sys._current_frames().get(thread)
    if frame is None:
        return "an unknown place"
    stack = traceback.extract_stack(frame)
    own = [f for f in stack if not f.filename.startswith((_PACKAGE, sys.prefix, sys.base_prefix, "<"))]
    place = (own or stack)[-1]
    return f"{place.filename}:{place.lineno} in {place.name}"

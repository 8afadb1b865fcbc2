"""Where the process stands between its first `listen()` and its exit, and the lock file that tells it outside."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path


class Lifecycle:
    """
    The state that health, readiness, server and drain share.

    Healthy means listening and not told to stop; ready means started as well.  Signal handlers and the liveness thread
    use it too, hence nothing here waits or takes a lock.
    """

    def __init__(self, lock_path: Path | None = None) -> None:
        self.created_at = time.monotonic()
        self.listening = False
        self.started = False
        self.ended = False
        self.stop_requested_at: float | None = None
        self.interrupted = 0
        self.inflight = 0
        """Calls being handled, streams and WebSockets included."""
        self.after_a_kill = False
        """The process before this one has left its lock: the pod keeps its /tmp when a container starts anew."""
        self._lock_path = lock_path

    @property
    def stopping(self) -> bool:
        """True from the first SIGTERM or SIGINT on."""
        return self.stop_requested_at is not None

    @property
    def healthy(self) -> bool:
        """What `/_/health` answers; without its lock file a process is unhealthy, as with of-watchdog."""
        return self.listening and not self.stopping and (self._lock_path is None or self._lock_path.exists())

    def listen(self) -> None:
        """Write the lock file: from now on callers may come."""
        self.listening = True
        if self._lock_path is not None:
            self._lock_path.parent.mkdir(parents=True, exist_ok=True)
            self.after_a_kill = self._lock_path.exists()
            self._lock_path.write_bytes(b"")
        if self.stopping:
            # The signal has come before there was a file to remove.
            self.remove_lock()

    def stop(self, *, interrupted: bool = False) -> None:
        """Take note of SIGTERM, or of Ctrl-C, after which nobody waits for routers to learn of it."""
        if self.stop_requested_at is None:
            self.stop_requested_at = time.monotonic()
        self.interrupted += interrupted
        self.remove_lock()

    def remove_lock(self) -> None:
        """Tell probes that look for the lock file not to send anyone."""
        if self.listening and self._lock_path is not None:
            with contextlib.suppress(OSError):
                self._lock_path.unlink()

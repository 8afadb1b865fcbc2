"""
The process: listen first, then load and serve the handler, and on SIGTERM stop without losing a call.

Nothing heavy is imported before `listen()`: a call that arrives during start waits in a socket and is answered.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any

from .errors import FaasError, SettingError, StartError
from .lifecycle import Lifecycle
from .liveness import BACKLOG, LivenessGuard
from .settings import Settings, load_settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider


_FLUSH_SECONDS = 1.0
_EXIT_SECONDS = 1.0
_LAST_SECONDS = 0.4
_LAST_LINE_SECONDS = 0.1
# The first Ctrl-C drains, the second cancels what is in flight, and whoever presses it again means now.
_PATIENCE = 2


def main() -> None:
    """Run the function of the current folder until it is told to stop; exits 0 after a drain, 1 on any failure."""
    try:
        _run(load_settings(os.environ))
    except FaasError as exc:
        _fail(exc)
    except Exception as exc:  # noqa: BLE001 - the last border of the process: whatever it was, one line and status 1
        _fail(exc)
    _exit(0)


def listen(host: str, port: int, setting: str = "port") -> socket.socket:
    """
    Return a socket that listens on *port* of *host*, or of every address of both families where *host* is empty.

    *setting* is what a failure names.

    Raises:
        SettingError: The port or the address cannot be had.
    """
    try:
        if not host and socket.has_dualstack_ipv6():
            return socket.create_server(("::", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
        return socket.create_server((host, port), backlog=BACKLOG)
    except OSError as exc:
        raise SettingError(setting, f"cannot listen on {host or '*'}:{port}: {exc.strerror}") from exc


def _run(settings: Settings) -> None:
    # Collections during imports cost a quarter of a start and free nothing.
    gc.disable()
    lifecycle = Lifecycle(None if settings.suppress_lock else settings.lock_path)
    wake: list[Callable[[], Any]] = []
    _handle_signals(lifecycle, settings, wake)
    listener = listen(settings.host, settings.port)
    metrics_listener = listen(settings.metrics_host, settings.metrics_port, "metrics_port")
    _write_lock(lifecycle)
    guard = LivenessGuard(listener, lifecycle)
    guard.start()
    try:
        _serve(settings, lifecycle, guard, [listener, metrics_listener], wake)
    finally:
        lifecycle.remove_lock()


def _serve(
    settings: Settings,
    lifecycle: Lifecycle,
    guard: LivenessGuard,
    listeners: list[socket.socket],
    wake: list[Callable[[], Any]],
) -> None:
    from . import logs, secrets, tracing

    secrets.use_directory(settings.secrets_dir)
    redactor = logs.configure(settings, os.environ)
    if lifecycle.after_a_kill:
        _tell_of_the_kill()
    provider: TracerProvider | None = None
    if settings.tracing_enabled:
        from . import export

        provider = export.otlp_provider(settings, redactor)
        tracing.use_provider(provider)
    from .app import build_app
    from .consuming import open_consumers
    from .hosting import run_loop
    from .loading import load_handler
    from .serving import FunctionServer

    wanted = settings.access_log and settings.log_level in ("DEBUG", "INFO")
    access_log = logs.AccessLog(sys.stdout, settings.function_name, redactor) if wanted else None
    handler = load_handler()
    app = build_app(handler, settings, lifecycle, access_log)
    consumers = open_consumers(handler, settings)
    server = FunctionServer(app, settings, lifecycle, guard, consumers, flush=lambda: _flush(provider))
    # What start-up made stays for good; leaving it out of every later collection saves time and shared pages.
    gc.freeze()
    gc.enable()
    wake.append(server.wake)
    run_loop(server.run(*listeners))
    wake.clear()
    _flush(provider, final=True)
    lifecycle.ended = True


def _handle_signals(lifecycle: Lifecycle, settings: Settings, wake: list[Callable[[], Any]]) -> None:
    """Take note of signals from the first moment on, so that one that comes during start is a drain as well."""

    def stop(number: int, frame: FrameType | None) -> None:
        if not lifecycle.stopping:
            _bound_the_end(lifecycle, settings)
        lifecycle.stop(interrupted=number == signal.SIGINT)
        if (lifecycle.interrupted and not lifecycle.started) or lifecycle.interrupted > _PATIENCE:
            os._exit(128 + number)
        for call in wake:
            call()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def _bound_the_end(lifecycle: Lifecycle, settings: Settings) -> None:
    """End the process before SIGKILL would, whatever hangs; sooner where it has not even started."""
    end = settings.termination_grace_period - _LAST_SECONDS
    _timer(end, lambda: _abandon(lifecycle, "it did not end in time"))
    start = settings.healthcheck_interval + settings.reserve_seconds
    _timer(min(start, end), lambda: None if lifecycle.started else _abandon(lifecycle, "it had not started"))


def _abandon(lifecycle: Lifecycle, why: str) -> None:
    if lifecycle.ended:
        return
    import logging

    # In a thread that nobody waits for: what hangs may hold the log's lock.
    _timer(0.0, lambda: logging.getLogger("faasbase").critical("stopped by force: %s", why))
    time.sleep(_LAST_SECONDS / 2)
    os._exit(1)


def _timer(seconds: float, call: Callable[[], None]) -> None:
    timer = threading.Timer(seconds, call)
    timer.daemon = True
    timer.start()


def _write_lock(lifecycle: Lifecycle) -> None:
    try:
        lifecycle.listen()
    except OSError as exc:
        reason = f"the lock file cannot be written there: {exc.strerror}; suppress_lock=true does without"
        raise SettingError("TMPDIR", reason) from exc


def _tell_of_the_kill() -> None:
    import logging

    why = "the process before this one was killed, or crashed; most often it had taken more memory than its limit"
    logging.getLogger("faasbase").warning(why)


def _flush(provider: TracerProvider | None, *, final: bool = False) -> None:
    if provider is None:
        return
    from . import export

    (export.shut_down if final else export.flush)(provider, _FLUSH_SECONDS)


def _fail(exc: Exception) -> None:
    """Leave one line that says why, and exit 1."""
    import logging

    from . import logs

    if not logging.getLogger().handlers:
        # The settings themselves may be what is wrong, yet the log should say whose they are.
        logs.configure(Settings(function_name=os.environ.get("OPENFAAS_NAME") or "function"), os.environ)
    cause = exc.__cause__ if isinstance(exc, FaasError) else exc
    shown = (type(cause), cause, cause.__traceback__) if cause is not None else None
    what = "start failed" if isinstance(exc, StartError) else "failed"
    kind = "" if isinstance(exc, FaasError) else f"{type(exc).__name__}: "
    logging.getLogger("faasbase").critical("%s: %s%s", what, kind, exc, exc_info=shown)
    if os.environ.get("upstream_url"):  # noqa: SIM112 - of-watchdog's own spelling
        # of-watchdog stops reading at the very moment that its function ends, and the line must be out by then.
        time.sleep(_LAST_LINE_SECONDS)
    _exit(1)


def _exit(status: int) -> None:
    """End the process even where a thread of the handler would keep it: a `def` that never returns must not."""
    _timer(_EXIT_SECONDS, lambda: os._exit(status))
    try:
        sys.stdout.flush()
    except OSError:
        # Nobody reads any more; Python would make a failure of it once again.
        os._exit(status)
    sys.exit(status)

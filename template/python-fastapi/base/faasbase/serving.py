"""The life of the serving process: start, serve until told to stop, drain so that nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from . import metrics
from .app import resources
from .consuming import Consumers, finished
from .errors import FaasError, StartError
from .failures import in_lifespan, lifespan_failure
from .holding import held_call
from .hosting import close, lifespan_errors_are_ours, protocol_factory, start, uvicorn_server
from .lifecycle import Lifecycle
from .liveness import LivenessGuard
from .protocol import FunctionProtocol
from .settings import Settings
from .watchdog import Watchdog

logger = logging.getLogger("faasbase")

COLD_START = metrics.gauge("faas_cold_start_seconds", "Seconds from the first listen() until calls were served.")

_BEAT_SECONDS = 0.1
_SHUTDOWN_SECONDS = 5.0
_EXIT_SECONDS = 2.0
_DRAIN_TICK_SECONDS = 0.02
# Who has connected within the window may still be about to send its request.
_FIRST_REQUEST_SECONDS = 1.0


class FunctionServer:
    """Serves the function's app and its metrics until the lifecycle says stop, then drains."""

    def __init__(
        self,
        app: Watchdog,
        settings: Settings,
        lifecycle: Lifecycle,
        guard: LivenessGuard,
        consumers: Consumers,
        flush: Callable[[], None],
    ) -> None:
        self._app = app
        self._settings = settings
        self._lifecycle = lifecycle
        self._guard = guard
        self._consumers = consumers
        self._flush = flush
        self._server = uvicorn_server(app, settings, "auto")
        self._metrics = uvicorn_server(metrics.metrics_app(), settings, "off")
        self._executor = ThreadPoolExecutor(2, "server")
        self._stop = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._adopting: set[asyncio.Task[Any]] = set()

    def wake(self) -> None:
        """Tell the loop that the lifecycle has changed; called from a signal handler."""
        if self._loop is not None:
            # A signal may still come when the loop is closed already.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop.set)

    async def run(self, listener: socket.socket, metrics_listener: socket.socket) -> None:
        """Serve until told to stop, drain, and return; raises StartError where start-up failed."""
        self._loop = asyncio.get_running_loop()
        async with resources(self._settings):
            await start(self._metrics, metrics_listener)
            try:
                await start(self._server, listener)
            except StartError as exc:
                raise lifespan_failure(self._app.lifespan_error, exc) from self._app.lifespan_error
            # An app that knows no lifespan has raised as well, and serves all the same.
            self._app.lifespan_error = None
            await self._start_consumers()
            self._guard.attach(self._adopt)
            self._lifecycle.started = True
            COLD_START.set(time.monotonic() - self._lifecycle.created_at)
            logger.info("serving on port %d", self._settings.port)
            self._tell_short_drain()
            beating = asyncio.create_task(self._beat(), name="beat")
            try:
                failure = await self._until_stopped()
                await self._drain(listener)
            finally:
                beating.cancel()
                await asyncio.gather(beating, return_exceptions=True)
                await close(self._metrics)
            if failure is not None:
                raise failure

    async def _start_consumers(self) -> None:
        try:
            await self._consumers.start()
        except BaseException:
            # What the lifespan has opened, it closes; why there was no start is told by whoever gets this.
            with contextlib.suppress(FaasError):
                await self._end_lifespan()
            raise

    def _loop_thread(self, work: Callable[[], None]) -> asyncio.Future[None]:
        """Do *work* in a thread of our own: those that asyncio lends may all be busy with the function's work."""
        return asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _tell_short_drain(self) -> None:
        settings = self._settings
        if settings.drain_timeout < min(settings.exec_timeout or settings.write_timeout, settings.write_timeout):
            logger.debug(
                "at the end calls in flight get %g s, for the pod has %g s (termination_grace_period)",
                settings.drain_timeout,
                settings.termination_grace_period,
            )

    async def _beat(self) -> None:
        counter = 0
        while True:
            self._guard.beat()
            # uvicorn renews its Date header here.
            await self._server.on_tick(counter)
            await self._metrics.on_tick(counter)
            counter += 1
            await asyncio.sleep(_BEAT_SECONDS)

    async def _until_stopped(self) -> FaasError | None:
        """Wait for the signal to stop, or until events are no longer fetched, and return why."""
        failing = asyncio.create_task(self._consumers.failed(), name="events")
        failing.add_done_callback(lambda task: self._stop.set())
        try:
            while not self._lifecycle.stopping:
                if failing.done():
                    self._lifecycle.stop()
                    return failing.result()
                await self._wait_for_signal(None)
        finally:
            failing.cancel()
            await asyncio.gather(failing, return_exceptions=True)
        return None

    async def _wait_for_signal(self, seconds: float | None) -> None:
        self._stop.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()

    async def _drain(self, listener: socket.socket) -> None:
        """
        Go on serving for the window, since routers learn late; then finish what is in flight, within its own time.

        Ctrl-C ends the window at once, and a second one the waiting too.
        """
        seconds = 0.0 if self._lifecycle.interrupted else self._settings.window_seconds
        logger.info("stopping%s", f": calls are taken for another {seconds:g} s" if seconds else "")
        flushing = self._loop_thread(self._flush)
        # No event is fetched from now on; those being handled have as long as calls.
        events = asyncio.create_task(self._drain_events(seconds + self._settings.drain_timeout), name="events")
        await self._window()
        for server in self._server.servers:
            server.close()
        listener.close()
        await self._loop_thread(self._guard.stop)
        await self._finish_calls()
        await self._finish_events(events)
        await self._end_lifespan()
        await flushing
        logger.info("stopped")

    async def _end_lifespan(self) -> None:
        try:
            with lifespan_errors_are_ours():
                async with asyncio.timeout(self._shutdown_seconds()):
                    await self._server.lifespan.shutdown()
        except TimeoutError:
            logger.warning("the function's lifespan did not end in time")
        if error := self._app.lifespan_error:
            raise FaasError(in_lifespan(error)) from error

    def _shutdown_seconds(self) -> float:
        """Return what the lifespan may take: what the pod still has, less the last flush and the exit."""
        ends_at = (self._lifecycle.stop_requested_at or 0.0) + self._settings.termination_grace_period
        return max(0.5, min(_SHUTDOWN_SECONDS, ends_at - time.monotonic() - _EXIT_SECONDS))

    async def _window(self) -> None:
        seconds = self._settings.window_seconds
        while not self._lifecycle.interrupted:
            left = (self._lifecycle.stop_requested_at or 0.0) + seconds - time.monotonic()
            if left <= 0:
                return
            await self._wait_for_signal(left)

    async def _finish_calls(self) -> None:
        state = self._server.server_state
        began = time.monotonic()
        told: set[Any] = set()
        while time.monotonic() < began + self._settings.drain_timeout and self._lifecycle.interrupted < 2:
            patient = time.monotonic() < began + _FIRST_REQUEST_SECONDS
            expected = [c for c in list(state.connections) if patient and _awaits_first_request(c)]
            # Once each: a WebSocket that is told again is cut before it can say goodbye.
            for connection in state.connections - set(expected) - told:
                connection.shutdown()
                told.add(connection)
            # Connections count as well: a large answer is still being read when its handler has long ended.
            if not (state.tasks or self._adopting or state.connections):
                break
            await asyncio.sleep(_DRAIN_TICK_SECONDS)
        if late := list(state.tasks):
            logger.warning(
                "%d calls were cancelled: not finished within %g s",
                len(late),
                self._settings.drain_timeout,
            )
            for task in late:
                task.cancel()
            await asyncio.wait(late, timeout=1.0)
        for connection in list(state.connections):
            connection.transport.abort()

    async def _drain_events(self, seconds: float) -> None:
        async with held_call(self._app, self._settings, self._consumers):
            await self._consumers.drain(seconds)

    async def _finish_events(self, draining: asyncio.Task[None]) -> None:
        # Behind what was handled come a last commit and leaving, for which half of the reserve is theirs.
        settings, stopped_at = self._settings, self._lifecycle.stop_requested_at or 0.0
        until = stopped_at + settings.window_seconds + settings.drain_timeout + settings.reserve_seconds / 2
        await finished(draining, until, hurried=lambda: self._lifecycle.interrupted > 1)

    def _adopt(self, sock: socket.socket) -> None:
        """Take a connection over that the liveness thread accepted; called from that thread."""
        assert self._loop is not None  # noqa: S101 - attached after the loop runs
        self._loop.call_soon_threadsafe(self._connect, sock)

    def _connect(self, sock: socket.socket) -> None:
        assert self._loop is not None  # noqa: S101
        self._guard.taken()
        factory = protocol_factory(self._server)
        task = self._loop.create_task(self._loop.connect_accepted_socket(factory, sock))
        self._adopting.add(task)
        task.add_done_callback(self._adopting.discard)


def _awaits_first_request(connection: Any) -> bool:
    return isinstance(connection, FunctionProtocol) and connection.awaits_first_request

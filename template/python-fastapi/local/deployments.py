"""Keep one function running: replaced when its code changes, started again with back-off when it ends."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from faasbase.durations import parse_duration
from installing import InstallError
from processes import Process, StartFailedError, SupersededError
from restarts import Restarts
from stackfile import Function
from staging import StagingError

DRAIN_SECONDS = 30.0
"""How long a process that was told to stop may go on with its calls when the function sets no ``write_timeout``."""


class Launch(Protocol):
    """How a process of a function is started; the terminal shows nothing of a *quiet* one until it is released."""

    def __call__(self, function: Function, template: Path, *, quiet: bool) -> Awaitable[Process]:
        """Start one."""


class UnavailableError(Exception):
    """A function has no process that could take a call."""

    def __init__(self, name: str, reason: str, retry_after_seconds: float | None) -> None:
        self.name = name
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds
        super().__init__(f"{name} is not running: {reason}")


class Deployment:
    """A function and the process that serves it."""

    def __init__(
        self,
        function: Function,
        template: Path,
        launch: Launch,
        ended: Callable[[Process], None],
        report: Callable[[str], None],
    ) -> None:
        self.function = function
        self.template = template
        self.created = datetime.now(UTC)
        self.invocations = 0
        self.process: Process | None = None
        self.error: str | None = None
        """What is wrong with the newest code; an older process may still serve."""
        self._launch = launch
        self._ended = ended
        self._report = report
        self._restarts = Restarts()
        self._wait_seconds = 0.0
        self._failing = False
        """Whether the last start has failed, of code that is still the same."""
        self._starting = True
        self._changed = asyncio.Event()
        self._news = asyncio.Event()
        self._retiring: set[asyncio.Task[None]] = set()

    def change(self) -> None:
        """Have a new process started from the files as they are now."""
        self._changed.set()

    async def acquire(self) -> Process:
        """
        Return the process that takes calls now; wait while the first one starts.

        Raises:
            UnavailableError: there is none, and the next start is some time away.
        """
        while self.process is None:
            if not self._starting:
                reason = self.error or "it has been stopped"
                raise UnavailableError(self.function.name, reason, self._restarts.due_seconds)
            await self._news.wait()
        return self.process

    async def settled(self) -> None:
        """Wait until the function serves, or its start has failed."""
        while self._starting:
            await self._news.wait()

    async def run(self) -> None:
        """Keep the function running until cancelled; `stop` it then."""
        try:
            while True:
                if self._changed.is_set():
                    self._restarts.changed()
                    self._failing = False
                self._changed.clear()
                await self._replace()
                if not self._changed.is_set():
                    await self._until_next_start()
        finally:
            # Calls that wait for the first process wait in vain now.
            self._announce(starting=False)

    async def stop(self, *, at_once: asyncio.Event) -> None:
        """Let the calls in flight finish and end every process; *at_once* cuts that short."""
        process, self.process = self.process, None
        self._announce(starting=False)
        stopping = {*self._retiring}
        if process is not None:
            # SIGINT rather than SIGTERM: the gateway takes no more calls, so that there is no window to keep open.
            stopping.add(self._retire(process, signal.SIGINT))
        impatient = asyncio.create_task(at_once.wait())
        while stopping and not at_once.is_set():
            await asyncio.wait({*stopping, impatient}, return_when=asyncio.FIRST_COMPLETED)
            stopping = {task for task in stopping if not task.done()}
        for task in (impatient, *stopping):
            task.cancel()
        await asyncio.gather(impatient, *stopping, return_exceptions=True)

    async def _replace(self) -> None:
        self._announce(starting=True)
        started = time.monotonic()
        try:
            process = await self._start()
        except SupersededError:
            return
        except InstallError as error:
            # Packages do not appear by waiting, and an attempt is not cheap.
            self._start_failed(str(error), self._restarts.only_after_a_change())
            return
        except (StartFailedError, StagingError, OSError) as error:
            self._start_failed(str(error), self._restarts.start_failed(), getattr(error, "shown", None))
            return
        self._started(process, time.monotonic() - started)

    def _started(self, process: Process, seconds: float) -> None:
        old, self.process, self.error = self.process, process, None
        self._failing = False
        self._restarts.started()
        process.output.release()
        self._announce(starting=False)
        what = "replaced" if old else "ready"
        # Each process has a port of its own: what was told of the one before is over.
        self._report(f"{self.function.name}: {what} in {seconds:.1f} s, metrics on {process.metrics_url}")
        if old is not None:
            self._retire(old, signal.SIGTERM)

    async def _start(self) -> Process:
        # What it says when it fails once more has been said.
        process = await self._launch(self.function, self.template, quiet=self._failing)
        try:
            await process.ready(self._changed)
        except BaseException:
            await self._end(process)
            raise
        return process

    async def _until_next_start(self) -> None:
        process = self.process
        if process is not None:
            if await self._changed_before(process.exited()):
                return
            self._crashed(process)
            await self._end(process)
        await self._changed_before(asyncio.sleep(self._wait_seconds))

    async def _changed_before(self, event: Coroutine[Any, Any, object]) -> bool:
        """Wait for a change or for *event*, and tell whether it was the change."""
        tasks = {asyncio.create_task(event), asyncio.create_task(self._changed.wait())}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return self._changed.is_set()

    def _start_failed(self, reason: str, wait_seconds: float, shown: str | None = None) -> None:
        name = self.function.name
        known = self._failing and reason == self.error
        self.error, self._failing, self._wait_seconds = reason, True, wait_seconds
        self._announce(starting=False)
        if known:
            return
        what = "does not start; waiting for a change of its code"
        if self.process is not None:
            what = "the change does not start; THE OLD CODE GOES ON until it is mended"
        self._report(f"{name}: {what}\n{shown or f'  {reason}'}")

    def _crashed(self, process: Process) -> None:
        self.process, self.error = None, process.last_words()
        self._wait_seconds = self._restarts.crashed(time.monotonic() - process.started)
        self._announce(starting=False)
        again = f"crashed, starts again in {self._wait_seconds:.1f} s"
        self._report(f"{self.function.name}: {again}\n{process.output.explained(self.error)}")

    def _announce(self, *, starting: bool) -> None:
        self._starting = starting
        self._news.set()
        self._news = asyncio.Event()

    def _retire(self, process: Process, first: signal.Signals) -> asyncio.Task[None]:
        task = asyncio.create_task(self._drain(process, first))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        return task

    async def _drain(self, process: Process, first: signal.Signals) -> None:
        try:
            await process.stop(first, drain_seconds(self.function))
        finally:
            await self._end(process)

    async def _end(self, process: Process) -> None:
        await process.kill()
        self._ended(process)


def drain_seconds(function: Function) -> float:
    """Return how long a process of *function* may need to end: its own window and deadline, and a margin."""
    seconds = DRAIN_SECONDS
    with suppress(ValueError, KeyError):
        seconds = parse_duration(function.environment["write_timeout"])
    with suppress(ValueError, KeyError):
        seconds += parse_duration(function.environment["healthcheck_interval"])
    return seconds + 5.0

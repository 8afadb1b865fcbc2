"""One ``up`` from its first process to its last: the functions, the watch over their code, the queue, the gateway."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from async_queue import AsyncQueue
from deployments import Deployment
from environments import Environments
from gateway import Gateway
from greeting import greeting
from guarding import start_guardian
from launching import Launcher
from logbook import Logbook
from options import Options
from ports import ADDRESS
from selection import Selection
from system import SystemApi
from terminal import Terminal
from watching import Watch

KEEP_ALIVE_SECONDS = 75


class Running:
    """Everything that runs between the start and the stop."""

    def __init__(
        self,
        selection: Selection,
        options: Options,
        state: Path,
        listener: socket.socket,
        timeout_seconds: float,
        terminal: Terminal,
    ) -> None:
        self._selection = selection
        self._options = options
        self._state = state
        self._listener = listener
        self._terminal = terminal
        self._timeout_seconds = timeout_seconds
        self._url = f"http://{ADDRESS}:{listener.getsockname()[1]}"
        self._logbook = Logbook()
        self._environments = Environments(state / "environments", terminal.say)

    async def run(self, stop: asyncio.Event, at_once: asyncio.Event) -> int:
        """Run until *stop*; return 0, or 1 when a part of the supervisor itself has failed."""
        launcher = await self._launcher()
        deployments = self._deployments(launcher)
        queue = AsyncQueue(deployments, self._terminal.say)
        system = SystemApi(deployments, self._logbook)
        server = _server(Gateway(deployments, queue, system, self._timeout_seconds), self._timeout_seconds)
        serving = [
            asyncio.create_task(server.serve([self._listener])),
            asyncio.create_task(queue.run()),
        ]
        keeping = [
            *(asyncio.create_task(deployment.run()) for deployment in deployments.values()),
            asyncio.create_task(self._watch(deployments).run()),
        ]
        greeting = asyncio.create_task(self._greet(deployments))
        failed = await self._until(stop, [*serving, *keeping])
        self._terminal.say("stopping: calls in flight finish (Ctrl-C again to end at once)")
        server.should_exit = True
        queue.stop()
        self._logbook.close()
        self._environments.stop()
        await _cancel([*keeping, greeting])
        await _finish(serving, at_once, server)
        await asyncio.gather(*(each.stop(at_once=at_once) for each in deployments.values()))
        await launcher.guardian.end()
        if not at_once.is_set():
            await self._tidy_up()
        return 1 if failed else 0

    async def _tidy_up(self) -> None:
        """Remove environments of requirements that have been edited since; nothing runs on them any more."""
        removed = await asyncio.to_thread(self._environments.remove_unused)
        if removed:
            self._terminal.say(f"removed {removed} environment{'s' * (removed > 1)} that no function uses any more")

    async def _launcher(self) -> Launcher:
        return Launcher(
            project=Path.cwd(),
            state=self._state,
            copied_paths=self._selection.copied_paths,
            gateway_url=self._url,
            python=self._options.python,
            environments=self._environments,
            guardian=await start_guardian(),
            logbook=self._logbook,
            terminal=self._terminal,
        )

    def _deployments(self, launcher: Launcher) -> dict[str, Deployment]:
        return {
            function.name: Deployment(
                function,
                self._selection.templates[function.name],
                launcher.launch,
                launcher.ended,
                self._terminal.say,
            )
            for function in self._selection.functions
        }

    def _watch(self, deployments: Mapping[str, Deployment]) -> Watch:
        stack_file = self._options.stack_file
        folders = {name: (each.function.handler, each.template) for name, each in deployments.items()}

        def changed(name: str) -> None:
            if name in deployments:
                deployments[name].change()
            else:
                self._terminal.say(f"{name} has changed: start again to have it read")

        return Watch({**folders, str(stack_file): (stack_file,)}, changed)

    async def _greet(self, deployments: Mapping[str, Deployment]) -> None:
        """Say where everything is, once each function serves or has failed to start."""
        for deployment in deployments.values():
            await deployment.settled()
        self._terminal.say(await greeting(self._url, deployments.values()))

    async def _until(self, stop: asyncio.Event, tasks: list[asyncio.Task[None]]) -> bool:
        """Wait for *stop*; say so and return True when one of *tasks*, which should not end, ends before it."""
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            return False
        stopping.cancel()
        for task in tasks:
            if task.done():
                self._terminal.complain(f"the supervisor has failed: {task.exception()!r}")
        return True


class _Server(uvicorn.Server):
    """A server whose life is the supervisor's to decide."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _server(gateway: Gateway, timeout_seconds: float) -> _Server:
    config = uvicorn.Config(
        gateway,
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        # A function's answer has its own.
        server_header=False,
        date_header=False,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=int(timeout_seconds) + 1,
    )
    return _Server(config)


async def _finish(tasks: list[asyncio.Task[None]], at_once: asyncio.Event, server: uvicorn.Server) -> None:
    """Wait for *tasks* to end by themselves; *at_once* cuts that short."""
    impatient = asyncio.create_task(at_once.wait())
    finishing = asyncio.create_task(_all_done(tasks))
    await asyncio.wait({impatient, finishing}, return_when=asyncio.FIRST_COMPLETED)
    if not finishing.done():
        server.force_exit = True
        await _cancel(tasks)
    impatient.cancel()
    await asyncio.gather(impatient, finishing, return_exceptions=True)


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await _all_done(tasks)


async def _all_done(tasks: Iterable[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)

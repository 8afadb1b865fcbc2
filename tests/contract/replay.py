"""Replay a row of the contract table against a running process."""

from __future__ import annotations

import asyncio
import re
import signal
import time
from pathlib import Path
from typing import TypeVar

from tests.child import Process
from tests.contract.table import (
    CLOSED,
    EITHER,
    AskFirst,
    Call,
    Differs,
    Exits,
    Expected,
    Hold,
    LivesOn,
    LockFile,
    Only,
    Pattern,
    Pause,
    Refused,
    Remove,
    Row,
    Signal,
    SlowBody,
    Step,
    Target,
    Write,
)
from tests.processes import Running, run_function
from tests.watchdog import run_watchdog
from tests.wire import Answer, WireError, call, opened, request_bytes

T = TypeVar("T")
FUNCTION = Path(__file__).parent / "function"


class Replay:
    """One row, one process."""

    def __init__(self, process: Process, target: Target) -> None:
        self.process = process
        self.target = target
        self.held: list[asyncio.Task[None]] = []
        self.signalled_at = time.monotonic()

    async def run(self, row: Row) -> None:
        """Take every step; the calls that were held are compared before the end."""
        try:
            for step in row.steps:
                await self.take(step)
            for task in self.held:
                await task
        finally:
            for task in self.held:
                task.cancel()
            await asyncio.gather(*self.held, return_exceptions=True)

    async def take(self, step: Step) -> None:
        """Take one step."""
        match step:
            case Only(target, inner):
                await self.take(inner) if target == self.target else None
            case Call():
                await self.call(step)
            case Hold(call, for_seconds):
                self.held.append(asyncio.create_task(self.call(call)))
                await asyncio.sleep(for_seconds)
            case SlowBody():
                await self.slow_body(step)
            case AskFirst():
                await self.ask_first(step)
            case Pause(seconds):
                await asyncio.sleep(seconds)
            case _:
                await self.manage(step)

    async def manage(self, step: Step) -> None:
        """Take a step that concerns the process itself."""
        folder = self.process.lock_file.parent
        match step:
            case Signal(name):
                self.signalled_at = time.monotonic()
                self.process.send_signal(signal.Signals[name])
                # The handler of the signal runs beside us; what it does first it does at once.
                await asyncio.sleep(0.1)
            case Exits():
                await self.exits(step)
            case LivesOn():
                assert self.process.status is None, self.process.tail()
            case LockFile(exists):
                assert self.process.lock_file.exists() == self.pick(exists)
            case Write(name):
                (folder / name).touch()
            case Remove(name):
                (folder / name).unlink()
            case _:
                raise TypeError(step)

    def pick(self, value: T | Differs[T]) -> T:
        """Return what is expected of this target."""
        if isinstance(value, Differs):
            return value.ours if self.target == "ours" else value.watchdog
        return value

    async def call(self, call: Call) -> None:
        """Make a call and compare its answer."""
        expected = self.pick(call.expected)
        port = self.process.metrics_port if call.to_metrics else self.process.port
        data = call.raw or request_bytes(call.method, call.path, call.headers, call.body, close=True)
        answer = await _ask(port, data, call.method)
        compare(answer, expected, f"{call.method} {call.path}")

    async def slow_body(self, step: SlowBody) -> None:
        """Send half of a body and wait."""
        headers = {"Content-Length": "10"}
        data = request_bytes("POST", step.path, headers, b"half", close=True)
        answer = await _ask(self.process.port, data, "POST")
        compare(answer, self.pick(step.expected), f"half a body to {step.path}")

    async def ask_first(self, step: AskFirst) -> None:
        """Send a body only when the other side has said that it wants it."""
        headers = {"Content-Length": str(len(step.body)), "Expect": "100-continue"}
        async with opened(self.process.port) as connection:
            await connection.send(request_bytes("POST", step.path, headers, close=True))
            status, _ = await asyncio.wait_for(connection.head(), 5)
            assert status == 100, f"{status} before the body"
            await connection.send(step.body)
            compare(await connection.answer(method="POST"), step.expected, f"body to {step.path}")

    async def exits(self, step: Exits) -> None:
        """Wait for the end and compare status and time."""
        status = await self.process.exited()
        seconds = time.monotonic() - self.signalled_at
        least, most = self.pick(step.seconds)
        assert status == self.pick(step.status), self.process.tail()
        assert least <= seconds <= most, f"ended after {seconds:.2f} s, not {least} to {most} s"


async def replay(row: Row, target: Target) -> None:
    """Start a process for *row* and take its steps."""
    refusals = row.refusals(target)
    running = _running(row, target)
    if refusals or "suppress_lock" in row.settings:
        running = running.unwaited()
    async with running as process:
        if refusals:
            assert await process.exited() == refusals[0].status, process.tail()
            assert refusals[0].why in process.output()
            return
        if target == "ours":
            await _booted(process, row)
        await Replay(process, target).run(_started(row))


async def _booted(process: Process, row: Row) -> None:
    # Calls are taken from the first moment on and wait for the imports; rows that take times must not.
    if "ready_path" in row.settings:
        await call(process.port, "/status/200")
    else:
        await process.ready()


def _started(row: Row) -> Row:
    steps = [s for s in row.steps if not (isinstance(s, Only) and isinstance(s.step, Refused))]
    return Row(row.name, row.source, steps, row.settings, row.differs)


def _running(row: Row, target: Target) -> Running:
    settings = {"healthcheck_interval": "1s", "OPENFAAS_NAME": "contract", **row.settings}
    return run_function(FUNCTION, **settings) if target == "ours" else run_watchdog(FUNCTION, **settings)


async def _ask(port: int, data: bytes, method: str) -> Answer | None:
    """Return the answer, or None where the connection is refused or closed before its end."""
    try:
        async with opened(port) as connection:
            await connection.send(data)
            return await connection.answer(method=method)
    except (WireError, ConnectionError):
        return None


def compare(answer: Answer | None, expected: Expected, what: str) -> None:
    """Fail with the whole answer where it is not as *expected*."""
    if expected is EITHER:
        return
    if answer is None or expected is CLOSED:
        assert answer is None, f"{what}: answered {answer}"
        assert expected is CLOSED, f"{what}: closed without an answer"
        return
    wrong = [*_wrong_head(answer, expected), *_wrong_time(answer, expected)]
    assert not wrong, f"{what}: {'; '.join(wrong)}\n{answer}"


def _wrong_head(answer: Answer, expected: Expected) -> list[str]:
    wrong = []
    if answer.status != expected.status:
        wrong.append(f"status {answer.status}, not {expected.status}")
    if expected.body is not None and not _matches(expected.body, answer.text):
        wrong.append(f"body {answer.text!r}, not {expected.body!r}")
    for name, value in expected.headers.items():
        given = answer.header(name)
        if (given is None) != (value is None) or (value is not None and not _matches(value, given or "")):
            wrong.append(f"{name}: {given!r}, not {value!r}")
    return wrong


def _wrong_time(answer: Answer, expected: Expected) -> list[str]:
    wrong = []
    least, most = expected.seconds
    first = answer.pieces[0].at_seconds if answer.pieces else answer.seconds
    if not least <= answer.seconds <= most:
        wrong.append(f"took {answer.seconds:.2f} s, not {least} to {most} s")
    if expected.first_piece_before is not None and first > expected.first_piece_before:
        wrong.append(f"the first piece came after {first:.2f} s")
    if expected.first_piece_after is not None and first < expected.first_piece_after:
        wrong.append(f"the first piece came after {first:.2f} s already")
    return wrong


def _matches(pattern: Pattern, text: str) -> bool:
    if isinstance(pattern, str):
        return pattern == text
    return re.search(pattern, text) is not None

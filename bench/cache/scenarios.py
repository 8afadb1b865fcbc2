"""What is measured: hits, a stampede over three replicas, and a server that stops answering."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from statistics import quantiles

from tests.servers import RedisServer

from ..report import Result
from .contenders import Contender, settled

VALUE = "x" * 200
CALLERS = 64
REPLICAS = 3
STAMPEDE_CALLERS = 1000
LOAD_SECONDS = 0.1

Make = Callable[[int], Contender]


async def hit(server: RedisServer, make: Make, callers: int, seconds: float) -> list[Result]:
    """Let *callers* find one value again and again; how many a second, and what each costs this process."""
    contender = make(server.port)

    async def load() -> str:
        return VALUE

    try:
        await contender.get_or_load("hit:1", load)
        await settled()
        until, count = time.perf_counter() + seconds, 0

        async def caller() -> None:
            nonlocal count
            while time.perf_counter() < until:
                await contender.get_or_load("hit:1", load)
                count += 1

        started, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(caller() for _ in range(callers)))
        took, cpu = time.perf_counter() - started, time.process_time() - cpu
    finally:
        await contender.close()
    scenario = f"hit, {callers} callers"
    return [
        Result(scenario, contender.name, "hits a second", count / took),
        Result(scenario, contender.name, "CPU us a hit", cpu / count * 1e6),
    ]


async def stampede(server: RedisServer, make: Make) -> list[Result]:
    """Let 1,000 callers on three replicas miss one key at once: how often it is loaded, and the last one's wait."""
    replicas = [make(server.port) for _ in range(REPLICAS)]
    key, loads = f"stampede:{time.monotonic_ns()}", 0

    async def load() -> str:
        nonlocal loads
        loads += 1
        await asyncio.sleep(LOAD_SECONDS)
        return VALUE

    try:
        started = time.perf_counter()
        await asyncio.gather(*(replicas[n % REPLICAS].get_or_load(key, load) for n in range(STAMPEDE_CALLERS)))
        took = time.perf_counter() - started
        await settled()
    finally:
        for replica in replicas:
            await replica.close()
    return [
        Result("stampede", replicas[0].name, "loads", float(loads)),
        Result("stampede", replicas[0].name, "seconds until the last answer", took),
    ]


async def outage(server: RedisServer, make: Make, seconds: float) -> list[Result]:
    """Pause the server under load for *seconds*; what calls take then, and how soon hits are back after it."""
    contender = make(server.port)
    loads: list[float] = []
    calls: list[tuple[float, float]] = []

    async def load() -> str:
        loads.append(time.perf_counter())
        return VALUE

    stopped = asyncio.Event()

    async def caller(number: int) -> None:
        while not stopped.is_set():
            started = time.perf_counter()
            await contender.get_or_load(f"outage:{number % 8}", load)
            calls.append((started, time.perf_counter() - started))
            await asyncio.sleep(0.01)

    tasks = [asyncio.create_task(caller(number)) for number in range(16)]
    try:
        await asyncio.sleep(0.5)
        server.pause()
        paused = time.perf_counter()
        await asyncio.sleep(seconds)
        server.resume()
        resumed = time.perf_counter()
        await asyncio.sleep(3)
    finally:
        server.resume()
        # Not cancelled at once: some libraries swallow that, and go on for ever.
        stopped.set()
        await asyncio.wait(tasks, timeout=5)
        for task in tasks:
            task.cancel()
        async with asyncio.timeout(5):
            await contender.close()
    during = [took for started, took in calls if paused <= started < resumed]
    # The calls of the first half second find out; the others should not have to.
    later = [took for started, took in calls if paused + 0.5 <= started < resumed - 0.3]
    back = max((at for at in loads if at > resumed), default=resumed) - resumed
    return [
        Result("outage", contender.name, "p99 ms", _p99(during) * 1e3),
        Result("outage", contender.name, "p99 ms after half a second", _p99(later) * 1e3),
        Result("outage", contender.name, "calls a second", len(during) / seconds),
        Result("outage", contender.name, "seconds until hits are back", back),
    ]


def _p99(seconds: list[float]) -> float:
    return quantiles(seconds, n=100)[-1] if len(seconds) > 1 else max(seconds, default=float("nan"))

"""
A process of its own that loads through the cache: ``python -m tests.replica``, one command a line, one reply a line.

``load <key> <times> <seconds>``   that many callers at once; the loader takes seconds and counts itself in a file
``stop``
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path

from faasbase.caching import Cache, open_cache


async def main(url: str, runs: Path) -> None:
    cache = open_cache(url, namespace="replicas")
    print("ready", flush=True)  # noqa: T201 - it talks to its test
    loop = asyncio.get_running_loop()
    while (line := await loop.run_in_executor(None, sys.stdin.readline)).startswith("load"):
        _, key, times, seconds = line.split()
        print(json.dumps(await load(cache, runs, key, int(times), float(seconds))), flush=True)  # noqa: T201
    await cache.close()


async def load(cache: Cache, runs: Path, key: str, times: int, seconds: float) -> dict[str, object]:
    """Return the distinct results of *times* callers at once and how long the last of them waited."""

    async def loader() -> int:
        with runs.open("a") as file:
            file.write(f"{os.getpid()}\n")
        await asyncio.sleep(seconds)
        return 7

    started = time.monotonic()
    calls = [cache.get_or_load(key, loader, ttl_seconds=60, returns=int) for _ in range(times)]
    results = set(await asyncio.gather(*calls))
    return {"results": sorted(results), "seconds": time.monotonic() - started}


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))

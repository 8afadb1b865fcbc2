"""
Compare the cache with redis.asyncio and cashews on one server in one run: ``python -m bench.cache [--rounds 3]``.

The contenders take turns in each round, so that what the machine does beside meets all of them.  Results go to
``build/bench``.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import uvloop
from tqdm import tqdm

from tests.servers import RedisServer

from .. import report
from ..report import Result
from . import contenders
from .scenarios import CALLERS, hit, outage, stampede

Step = Callable[[RedisServer], Awaitable[list[Result]]]


def steps(rounds: int, seconds: float) -> list[tuple[str, Step]]:
    """Return what is done, in order."""
    found: list[tuple[str, Step]] = []
    for _ in range(rounds):
        for make in contenders.ALL:
            for callers in (1, CALLERS):
                found.append(("hit", partial(hit, make=make, callers=callers, seconds=seconds)))
        found += [("stampede", partial(stampede, make=make)) for make in contenders.AS_USED]
        found += [("outage", partial(outage, make=make, seconds=2 * seconds)) for make in contenders.AS_USED]
    return found


async def run(rounds: int, seconds: float) -> list[Result]:
    """Do all steps against one server and return all results."""
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder, RedisServer(Path(folder)) as server:
        bar = tqdm(steps(rounds, seconds), unit="step")
        for name, step in bar:
            bar.set_description(name)
            results += await step(server)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured")
    parser.add_argument("--seconds", type=float, default=1.5, help="how long each hit is measured")
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    # Outages are what is measured: nobody needs to be told of them.
    logging.disable(logging.CRITICAL)
    results = uvloop.run(run(options.rounds, options.seconds))
    table = report.medians(results)
    report.write(results, table, options.output, "cache")
    print(report.text(table))


if __name__ == "__main__":
    main()

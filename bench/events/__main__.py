"""
Compare events from Kafka with bare aiokafka loops and FastStream: ``python -m bench.events [--rounds 3]``.

Each contender is a process on the same one core, and they take turns in each round.  The rate is by CPU time, since the
broker shares the machine; results go to ``build/bench``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tqdm import tqdm

from deploy.brokers.kafka import KafkaServer
from tests.otlp_sink import otlp_sink

from .. import report
from ..report import Medians, Result
from .contenders import CONTENDERS
from .orders import fill

TOPIC, SCENARIO, RATE = "orders", "Kafka", "records a second, one core"
OURS = "faasbase"
RUN_SECONDS = 300.0


def measured(name: str, server: KafkaServer, count: int, sink: str) -> list[Result]:
    """Run the contender *name* on the last core and return its figures."""
    core = str(max(os.sched_getaffinity(0)))
    command = ["taskset", "-c", core, sys.executable, "-m", "bench.events.contenders", name]
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OPENFAAS_NAME": "bench",
        "OTEL_EXPORTER_OTLP_ENDPOINT": sink,
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.1",
    }
    done = subprocess.run(  # noqa: S603 - our own module
        [*command, server.bootstrap, TOPIC, str(count)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    rate = 1e6 / found["CPU us a record"]
    return [Result(SCENARIO, name, key, value) for key, value in {RATE: rate, **found}.items()]


def run(rounds: int, count: int) -> list[Result]:
    """Measure all contenders in turns and return all results."""
    results: list[Result] = []
    with tempfile.TemporaryDirectory() as folder, KafkaServer(Path(folder)) as server, otlp_sink() as sink:
        asyncio.run(fill(server, TOPIC, count))
        bar = tqdm([name for _ in range(rounds) for name in CONTENDERS], unit="run")
        for name in bar:
            bar.set_description(name)
            results += measured(name, server, count, sink.url)
    return results


def with_ratios(table: Medians) -> Medians:
    """Return *table* with our rate as a ratio to each of the others'."""
    rates = table[SCENARIO][RATE]
    ratios = {name: rates[OURS] / rate for name, rate in rates.items() if name != OURS}
    return {**table, SCENARIO: {**table[SCENARIO], "our rate by theirs": ratios}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured")
    parser.add_argument("--records", type=int, default=120_000, help="how many records each run handles")
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    results = run(options.rounds, options.records)
    table = with_ratios(report.medians(results))
    report.write(results, table, options.output, "events")
    print(report.text(table))


if __name__ == "__main__":
    main()

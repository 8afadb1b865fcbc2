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

from . import report
from .contenders import CONTENDERS
from .orders import fill

TOPIC = "orders"
RUN_SECONDS = 300.0


def measured(name: str, server: KafkaServer, count: int, sink: str) -> list[report.Result]:
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
    return [report.Result(name, report.RATE, rate), *(report.Result(name, key, found[key]) for key in found)]


def run(rounds: int, count: int) -> list[report.Result]:
    """Measure all contenders in turns and return all results."""
    results: list[report.Result] = []
    with tempfile.TemporaryDirectory() as folder, KafkaServer(Path(folder)) as server, otlp_sink() as sink:
        asyncio.run(fill(server, TOPIC, count))
        bar = tqdm([name for _ in range(rounds) for name in CONTENDERS], unit="run")
        for name in bar:
            bar.set_description(name)
            results += measured(name, server, count, sink.url)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="how often everything is measured")
    parser.add_argument("--records", type=int, default=60_000, help="how many records each run handles")
    parser.add_argument("--output", type=Path, default=Path("build/bench"))
    options = parser.parse_args()
    print(report.text(report.write(run(options.rounds, options.records), options.output)))


if __name__ == "__main__":
    main()

"""
``python -m deploy.brokers -- command …``: run a command beside Kafka, NATS and Redis, with their addresses in its
environment and the topics and streams of the samples made; stop all of them when it ends.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from .kafka import KafkaServer
from .nats import NatsServer
from .processes import Server, ServerError
from .redis import RedisServer

VARIABLES = {"Kafka": "KAFKA_URL", "NATS": "NATS_URL", "Redis": "REDIS_URL"}
"""What holds the address of each."""
PLACES = {
    "ORDERS_PUBLISH_URL": ("Kafka", "/orders"),
    "ORDERS_EVENTS_URL": ("Kafka", "/orders?group=order-worker"),
    "OUTCOMES_PUBLISH_URL": ("NATS", "/orders.outcomes"),
    "OUTCOMES_EVENTS_URL": ("NATS", "/ORDERS?durable=notifier&subject=orders.outcomes"),
}
"""What stack.yml takes the places of the samples' events from."""
TOPICS = {"orders": 12}
"""The topics of the samples and how many partitions each has."""
STREAMS = {"ORDERS": ["orders.>"]}
"""The streams of the samples and their subjects."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CONNECT_SECONDS = 5.0
USAGE = "usage: python -m deploy.brokers -- command [argument …]"


def main(arguments: Sequence[str]) -> int:
    """Run the command of *arguments* beside the brokers and return its exit status."""
    command = arguments[1:]
    if arguments[:1] != ["--"] or not command:
        print(USAGE, file=sys.stderr)
        return 2
    try:
        with tempfile.TemporaryDirectory(prefix="brokers-") as folder, brokers(Path(folder)) as addresses:
            return run(command, {**os.environ, **addresses})
    except ServerError as error:
        print(error, file=sys.stderr)
        return 1


@contextmanager
def brokers(folder: Path) -> Iterator[dict[str, str]]:
    """Start the brokers side by side in *folder*, fill them, and give the variables that hold their addresses."""
    kafka, nats = KafkaServer(folder / "kafka"), NatsServer(folder / "nats")
    servers: list[Server] = [nats, *_redis(folder), kafka]
    with ExitStack() as stack:
        for server in servers:
            server.launch(_ends_with_us("KILL"))
            stack.callback(server.kill)
        for server in servers:
            server.wait()
        asyncio.run(_fill(kafka, nats))
        for server in servers:
            print(f"{server.name} {server.url}  ({VARIABLES[server.name]}, process {server.pid})", flush=True)
        urls = {server.name: server.url for server in servers}
        addresses = {VARIABLES[name]: url for name, url in urls.items()}
        yield addresses | {variable: urls[name] + place for variable, (name, place) in PLACES.items()}


def run(command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run *command* to its end, with the signals that end this process passed on, and return its exit status."""
    try:
        process = subprocess.Popen([*_ends_with_us("TERM"), *command], env=dict(environ))
    except FileNotFoundError as error:
        raise ServerError(f"there is no program {command[0]}") from error

    def pass_on(number: int, _frame: FrameType | None) -> None:
        # A terminal has told the command already.
        if number != signal.SIGINT or not sys.stdin.isatty():
            process.send_signal(number)

    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


async def _fill(kafka: KafkaServer, nats: NatsServer) -> None:
    """Make the topics and streams of the samples."""
    from nats import connect

    for topic, partitions in TOPICS.items():
        await kafka.create_topic(topic, partitions)
    client = await connect(nats.url, connect_timeout=CONNECT_SECONDS, allow_reconnect=False)
    try:
        for stream, subjects in STREAMS.items():
            await client.jetstream(timeout=CONNECT_SECONDS).add_stream(name=stream, subjects=subjects)
    finally:
        await client.close()


def _redis(folder: Path) -> list[RedisServer]:
    return [RedisServer(folder / "redis")] if shutil.which("redis-server") else []


def _ends_with_us(name: str) -> list[str]:
    """Return the program that lets the kernel send signal *name* when this process is gone, where there is one."""
    return ["setpriv", "--pdeathsig", name, "--"] if shutil.which("setpriv") else []


def _give_up(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    for _number in SIGNALS:
        signal.signal(_number, _give_up)
    sys.exit(main(sys.argv[1:]))

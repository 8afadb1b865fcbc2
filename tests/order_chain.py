"""What tests of the orders' functions share: the functions as processes, and the webhook at the end of their chain."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import yaml

from deploy.brokers.nats import NatsServer
from tests.kafka_orders import eventually
from tests.processes import Running, run_function
from tests.servers_kafka import new_name
from tests.staging import FUNCTIONS, ROOT, TEMPLATE
from tests.wire import Answer, call

NAMES = ("order-intake", "order-worker", "notifier")
RETRIES = {"EVENTS_RETRY_BASE": "50ms", "EVENTS_RETRY_CAP": "200ms"}


@dataclass(frozen=True)
class Notice:
    """What the webhook was sent."""

    headers: dict[str, str]
    type: str
    id: str
    data: dict[str, Any]

    @property
    def order_id(self) -> str:
        return str(self.data["order_id"])


@dataclass
class Webhook:
    """A webhook; *statuses* are what it answers first, after which it takes everything."""

    url: str = ""
    statuses: list[int] = field(default_factory=list)
    got: list[Notice] = field(default_factory=list)

    async def notices(self, count: int = 1, *, seconds: float = 15.0) -> list[Notice]:
        """Wait until it was told of *count* different events, and return them in the order of their first coming."""
        await eventually(lambda: len(self._first()) >= count, f"told of {count} events", seconds)
        return self._first()

    def _first(self) -> list[Notice]:
        first: dict[str, Notice] = {}
        for notice in self.got:
            first.setdefault(notice.id, notice)
        return list(first.values())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer), suppress(OSError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            self.got.append(Notice(headers, **json.loads(await reader.readexactly(int(headers["content-length"])))))
            status = self.statuses.pop(0) if self.statuses else 204
            writer.write(f"HTTP/1.1 {status} Answer\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
            await writer.drain()


@asynccontextmanager
async def webhook(*statuses: int) -> AsyncIterator[Webhook]:
    """Give a webhook that answers *statuses* first."""
    hook = Webhook(statuses=list(statuses))
    async with await asyncio.start_server(hook.serve, "127.0.0.1", 0) as server:
        hook.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
        yield hook


@dataclass(frozen=True)
class Outcomes:
    """A stream of outcomes, as ``OUTCOMES_PUBLISH_URL`` and ``OUTCOMES_EVENTS_URL`` name it."""

    publish_url: str
    events_url: str
    durable: str


async def make_outcomes(server: NatsServer) -> Outcomes:
    """Make a stream of its own for the outcomes of orders."""
    name = new_name("orders")
    async with await nats.connect(server.url) as client:
        await client.jetstream().add_stream(name=name, subjects=[f"{name}.>"])
    events_url = f"{server.url}/{name}?durable={name}&subject={name}.outcomes"
    return Outcomes(f"{server.url}/{name}.outcomes", events_url, name)


def make_checkout(folder: Path) -> Path:
    """Return a project with the stack file and the functions of this one."""
    caches = shutil.ignore_patterns("__pycache__", ".*_cache")
    shutil.copytree(TEMPLATE, folder / "template" / TEMPLATE.name, ignore=caches)
    shutil.copytree(FUNCTIONS, folder / "functions", ignore=caches)
    shutil.copy(ROOT / "stack.yml", folder)
    return folder


def memory_limit(name: str) -> int:
    """Return the bytes that stack.yml lets the sample *name* have."""
    functions = yaml.safe_load((ROOT / "stack.yml").read_text())["functions"]
    mebibytes: str = functions[name]["limits"]["memory"].removesuffix("Mi")
    return int(mebibytes) << 20


def sample(name: str, **env: str | None) -> Running:
    """Run the sample *name*, with retries as quick as a test wants them."""
    return run_function(FUNCTIONS / name, **{**RETRIES, "OPENFAAS_NAME": name, **env})


async def order(
    port: int, key: str, lines: dict[str, int], *, path: str = "/", headers: dict[str, str] | None = None
) -> Answer:
    """Order the articles of *lines*, as a client of order-intake does."""
    given = {"Content-Type": "application/json", "Idempotency-Key": key, **(headers or {})}
    wanted = [{"sku": sku, "quantity": quantity} for sku, quantity in lines.items()]
    body = json.dumps({"customer": "ada@example.com", "lines": wanted}).encode()
    return await call(port, path, method="POST", headers=given, body=body)


async def push(port: int, order_id: str, *, path: str = "/", headers: dict[str, str] | None = None) -> Answer:
    """Push the event of an order, one pear, to order-worker as anybody could."""
    told = {"ce-specversion": "1.0", "ce-id": order_id, "ce-source": "/till", "ce-type": "order.created"}
    data = {"id": order_id, "customer": "ada@example.com", "lines": [{"sku": "pear", "quantity": 1}]}
    return await call(port, path, method="POST", headers={**told, **(headers or {})}, body=json.dumps(data).encode())


async def left(port: int, sku: str, *, path: str = "") -> int:
    """Ask order-worker how many of an article are left."""
    return int((await call(port, f"{path}/stock/{sku}")).json())

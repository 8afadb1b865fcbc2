"""The gateway's ``/system`` API, in the shapes that faas-cli reads."""

from __future__ import annotations

import asyncio
import json
import platform
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import asdict
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

from answers import Receive, Scope, Send, answer_json, answer_text
from deployments import Deployment
from faasbase import __version__
from logbook import Line, Logbook
from ports import ADDRESS
from stackfile import DEFAULT_NAMESPACE

OLD_CODE_SERVES = "the old code goes on, since the change does not start"
FOLLOW_SECONDS = 3600.0
"""How long ``/system/logs?follow=true`` goes on."""
VERSION = {"release": __version__, "sha": "local"}
INFO = {
    "provider": {"provider": "local", "version": VERSION, "orchestration": "processes"},
    "version": VERSION,
    "arch": platform.machine(),
}


def status_of(deployment: Deployment) -> dict[str, Any]:
    """Return a function's status as faas-provider's ``FunctionStatus`` has it."""
    function = deployment.function
    return {
        "name": function.name,
        "namespace": function.namespace,
        "image": function.image,
        "envProcess": function.fprocess or "python index.py",
        "envVars": function.environment,
        "constraints": function.constraints,
        "secrets": function.secrets,
        "labels": function.labels,
        "annotations": {**function.annotations, **_local_annotations(deployment)},
        "limits": function.limits or None,
        "requests": function.requests or None,
        "invocationCount": deployment.invocations,
        "replicas": 1,
        "availableReplicas": int(deployment.process is not None),
        "createdAt": deployment.created.isoformat(),
    }


def _local_annotations(deployment: Deployment) -> dict[str, str]:
    """Tell what only this gateway knows in the one place that ``faas-cli describe`` shows as it is."""
    annotations = {"local/handler": str(deployment.function.handler)}
    if deployment.process is not None:
        annotations["local/address"] = f"http://{ADDRESS}:{deployment.process.port}"
        annotations["local/metrics"] = deployment.process.metrics_url
        annotations["local/pid"] = str(deployment.process.pid)
    if deployment.error is not None:
        behind = "" if deployment.process is None else f"{OLD_CODE_SERVES}: "
        annotations["local/error"] = behind + deployment.error
    return annotations


class SystemApi:
    """Answer what is asked about the functions."""

    def __init__(self, deployments: Mapping[str, Deployment], logbook: Logbook) -> None:
        self._deployments = deployments
        self._logbook = logbook

    async def functions(self, scope: Scope, send: Send) -> None:
        """List the functions, of one namespace if the query names one."""
        namespace = query_value(scope, "namespace")
        chosen = [
            status_of(deployment)
            for deployment in self._deployments.values()
            if namespace in ("", deployment.function.namespace)
        ]
        await answer_json(send, 200, chosen)

    async def function(self, scope: Scope, send: Send, name: str) -> None:
        """Describe one function."""
        deployment = self._found(name, query_value(scope, "namespace"))
        if deployment is None:
            await answer_text(send, 404, f"no such function: {name}")
        else:
            await answer_json(send, 200, status_of(deployment))

    async def info(self, send: Send) -> None:
        """Tell what the gateway is."""
        await answer_json(send, 200, INFO)

    async def namespaces(self, send: Send) -> None:
        """List the namespaces that the functions are in, and the default one."""
        names = {deployment.function.namespace for deployment in self._deployments.values()}
        await answer_json(send, 200, sorted(names | {DEFAULT_NAMESPACE}))

    async def logs(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a function's log as NDJSON: what is kept, and with ``follow`` what comes, until the client goes."""
        name = query_value(scope, "name")
        if self._found(name, query_value(scope, "namespace")) is None:
            await answer_text(send, 404, f"no such function: {name}")
            return
        try:
            tail = int(query_value(scope, "tail") or 0)
            since = _time(query_value(scope, "since"))
        except ValueError:
            await answer_text(send, 422, "could not parse the log request")
            return
        follow = query_value(scope, "follow").lower() in ("1", "t", "true")
        sending = asyncio.create_task(_send_lines(send, self._lines(name, since, tail, follow=follow)))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({sending, gone}, timeout=FOLLOW_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()
            gone.cancel()
            await asyncio.gather(sending, gone, return_exceptions=True)

    def _found(self, name: str, namespace: str) -> Deployment | None:
        deployment = self._deployments.get(name)
        if deployment is None or namespace not in ("", deployment.function.namespace):
            return None
        return deployment

    async def _lines(self, name: str, since: datetime | None, tail: int, *, follow: bool) -> AsyncGenerator[Line, None]:
        # Followed before the kept lines are read: none is lost between.
        with self._logbook.follow(name) as reader:
            for line in self._logbook.lines(name, since=since, tail=tail):
                yield line
            while follow and (new := await reader.get()) is not None:
                yield new


async def _send_lines(send: Send, lines: AsyncGenerator[Line, None]) -> None:
    headers = [(b"content-type", b"application/x-ndjson")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    async with aclosing(lines):
        async for line in lines:
            body = _json_line(line)
            await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _json_line(line: Line) -> bytes:
    entry = asdict(line)
    entry["timestamp"] = entry.pop("time").isoformat()
    return json.dumps(entry).encode() + b"\n"


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def query_value(scope: Scope, name: str) -> str:
    """Return the last value of a query parameter, or an empty text."""
    values = parse_qs(scope["query_string"].decode("latin-1")).get(name)
    return values[-1] if values else ""


def _time(text: str) -> datetime | None:
    """Parse RFC 3339; ``None`` for an empty text."""
    if not text:
        return None
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(text)
    return time

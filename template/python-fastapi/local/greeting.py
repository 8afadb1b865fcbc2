"""What the terminal shows when everything runs: addresses, and for each function a curl to paste."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import httpx2

from deployments import Deployment
from events import event_sources

DOCUMENTED_URLS = ("http://127.0.0.1:8080", "http://localhost:8080")
ASKING_SECONDS = 3.0
CLASSIC = re.compile(r"^(async )?def handle\(\s*event\s*,\s*context\s*\)", re.MULTILINE)
ON_EVENT = re.compile(r"^@(?:\w+\.)?on_event\(\s*[\"']([\w.:/-]+)[\"']", re.MULTILINE)
PUSH = re.compile(r"\bce-type\b|application/cloudevents", re.IGNORECASE)
WITH_BODY = ("post", "put", "patch")
OPEN_EVENTS = "events are open to anyone here; deployed they need EVENTS_HTTP_SECRET"


async def greeting(url: str, deployments: Iterable[Deployment]) -> str:
    """Return the lines to print, for a gateway at *url*."""
    lines = ["", f"gateway    {url}    (faas-cli list --gateway {url})"]
    for deployment in deployments:
        name = deployment.function.name
        lines += ["", f"{name}    {url}/function/{name}"]
        if deployment.error is not None:
            lines.append("  does not start yet, see above: mend it, and it is tried again")
        else:
            lines += [f"  {line}" for line in await _hints(url, deployment)]
    return "\n".join([*lines, "", "Ctrl-C stops everything; a change of code starts it anew.", ""])


async def _hints(url: str, deployment: Deployment) -> list[str]:
    """Return a curl that works, where events come from, and what differs from a function that is deployed."""
    settings = {**os.environ, **deployment.function.environment}
    sources = event_sources(settings)
    fetched = [source for source in sources if not source.startswith("http:")]
    pushed = len(fetched) < len(sources)
    code = _text(deployment.function.handler / "handler.py")
    event_type = ON_EVENT.search(code)
    command = await _command(url, deployment, code, event_type[1] if event_type else None, pushed=pushed)
    is_open = event_type and pushed and "EVENTS_HTTP_PUBLIC" not in settings
    events = [f"events come from {source}" for source in fetched]
    return [*([command] if command else []), *events, *([OPEN_EVENTS] if is_open else [])]


async def _command(url: str, deployment: Deployment, code: str, event_type: str | None, *, pushed: bool) -> str | None:
    """Return a curl that works, or ``None`` where all that the function takes are events that are not *pushed*."""
    address = f"{url}/function/{deployment.function.name}"
    documented = _documented(url, deployment.function.handler / "README.md")
    if documented is not None and (pushed or not PUSH.search(documented)):
        return documented
    if CLASSIC.search(code):
        # It takes whatever comes; a question for its document would be a call to the user's code.
        return f"curl -s {address}"
    return _example(address, await _document(deployment), event_type, pushed=pushed)


def _documented(url: str, readme: Path) -> str | None:
    """Return the first curl of the function's README, which knows what the function takes."""
    command = _first_curl(_text(readme))
    for documented in DOCUMENTED_URLS if command else ():
        command = command and command.replace(documented, url)
    return command


def _first_curl(text: str) -> str | None:
    """Return the first line of a fenced block that begins with ``curl``, and what it is continued by."""
    lines = iter(text.splitlines())
    fenced = False
    for line in lines:
        fenced ^= line.startswith("```")
        command = line.removeprefix("$ ")
        if fenced and command.startswith("curl "):
            while command.endswith("\\"):
                command += "\n" + next(lines, "")
            return command
    return None


async def _document(deployment: Deployment) -> object:
    """Return the function's OpenAPI document, or ``None`` where it has none or does not answer soon."""
    process = deployment.process
    if process is None:
        return None
    try:
        async with asyncio.timeout(ASKING_SECONDS):
            response = await process.get("/openapi.json")
        return response.json() if response.status_code == 200 else None
    except (httpx2.HTTPError, TimeoutError, ValueError, RecursionError):
        return None


def _example(address: str, document: Any, event_type: str | None, *, pushed: bool) -> str | None:
    """Return a curl for what *document* says that the function takes, its root before any other path."""
    paths = document.get("paths") if isinstance(document, dict) else None
    offered = {path: item for path, item in paths.items() if isinstance(item, dict)} if isinstance(paths, dict) else {}
    if not offered and not pushed:
        return None
    if not offered and event_type:
        attributes = {"specversion": "1.0", "id": "1", "source": "/curl", "type": event_type}
        headers = " ".join(f"-H 'ce-{name}: {value}'" for name, value in attributes.items())
        return f"curl -s {address} {headers} --json '{{}}'"
    for path in sorted(offered, key=lambda each: (each != "/", "{" in each)):
        target = shlex.quote(address + ("" if path == "/" else path))
        if "get" in offered[path]:
            return f"curl -s {target}"
        if method := next((each for each in WITH_BODY if each in offered[path]), None):
            other = "" if method == "post" else f" -X {method.upper()}"
            return f"curl -s{other} {target} --json '{{}}'"
    return f"curl -s {address}"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""

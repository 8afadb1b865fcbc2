"""The commands that the embedded OpenFaaS offers when everything runs: each can be pasted and works."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.local_up import Up, make_project, up
from tests.staging import TEMPLATE

PLAIN = """
async def handle(name: str = "world") -> str:
    return f"hello {name}"
"""
ROUTES = """
from fastapi import APIRouter

router = APIRouter()

@router.get("/items/{item}")
async def item(item: int) -> int:
    return item

@router.get("/items")
async def items() -> list[int]:
    return []
"""
CLASSIC = """
def handle(event, context):
    print("called for", event.path, flush=True)
    return {"statusCode": 200, "body": "classic"}
"""
EVENTS = """
from faasbase import Event, on_event

@on_event("order.created")
async def fulfil(event: Event[dict]) -> None: ...
"""
APP = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{not a document"})
"""
BROKEN = "raise RuntimeError('this handler is broken')\n"
OPEN = "events are open to anyone here; deployed they need EVENTS_HTTP_SECRET"


def shown(local: Up, name: str) -> str:
    """Return what stands below the function's address."""
    return local.output().split(f"\n{name}    {local.url}/function/{name}\n")[1].split("\n\n")[0]


@pytest.mark.tool("curl")
def test_shown_curl_of_every_kind_of_function_works(tmp_path: Path) -> None:
    template = (TEMPLATE / "function" / "handler.py").read_text()
    handlers = {"plain": PLAIN, "new": template, "routes": ROUTES, "events": EVENTS, "classic": CLASSIC, "app": APP}
    project = make_project(tmp_path, handlers)
    with up(project) as local:
        assert "called for" not in local.output()
        assert shown(local, "new") == f"  curl -s {local.url}/function/new --json '{{}}'"
        assert shown(local, "routes") == f"  curl -s {local.url}/function/routes/items"
        for name in handlers:
            command = shown(local, name).splitlines()[0]
            done = subprocess.run(
                ["sh", "-c", f"{command} -f"], capture_output=True, text=True, timeout=20, check=False
            )
            assert done.returncode == 0, (command, done.stdout)
        assert OPEN in shown(local, "events")
        assert local.output().count(OPEN) == 1


def test_events_that_the_stack_file_opens_are_not_noted(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"fn": EVENTS}, more='environment:\n  EVENTS_HTTP_PUBLIC: "true"')
    with up(project) as local:
        assert re.search(r"ce-type: order\.created", shown(local, "fn"))
        assert OPEN not in local.output()


def test_curl_of_the_readme_is_shown_with_the_right_address(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"fn": PLAIN, "broken": BROKEN})
    readme = "# fn\n\nNo curl here.\n\n```sh\n$ curl -s \\\n  http://127.0.0.1:8080/function/fn\n```\n"
    (project / "fn" / "README.md").write_text(readme)
    with up(project) as local:
        assert f"  curl -s \\\n  {local.url}/function/fn\n" in local.output()
        assert f"broken    {local.url}/function/broken\n  does not start yet" in local.output()


def test_events_that_are_fetched_have_no_curl(tmp_path: Path) -> None:
    """Nobody can push them, whatever the README says; a path that is served beside them has one."""
    handlers = {"fn": EVENTS, "told": EVENTS, "routes": ROUTES + EVENTS}
    project = make_project(tmp_path, handlers, more="environment:\n  EVENTS_URL: memory://orders")
    (project / "told" / "README.md").write_text("```sh\ncurl http://127.0.0.1:8080 -H 'ce-type: order.created'\n```\n")
    with up(project) as local:
        where = "  events come from memory://orders"
        assert shown(local, "fn") == shown(local, "told") == where
        assert shown(local, "routes") == f"  curl -s {local.url}/function/routes/items\n{where}"

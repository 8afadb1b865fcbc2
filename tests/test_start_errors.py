"""A handler that cannot serve stops the start, with one line that says where and what."""

from __future__ import annotations

import pytest

from tests.processes import run_function

pytestmark = pytest.mark.anyio

BROKEN = {
    "nothing to call": ("x = 1\n", ["function/handler.py", "handle", "router", "app"]),
    "two surfaces": (
        "from fastapi import APIRouter\nrouter = APIRouter()\nasync def handle() -> None: ...\n",
        ["function/handler.py", "handle and router"],
    ),
    "untyped parameters": ("def handle(req):\n    return req\n", ["function/handler.py", "req", "type"]),
    "router of another kind": ("router = object()\n", ["function/handler.py", "APIRouter"]),
    "handle that cannot be called": ("handle = 3\n", ["function/handler.py", "handle"]),
    "syntax error": ("async def handle( -> None: ...\n", ["function/handler.py:1", "SyntaxError"]),
    "missing library": ("import nowhere_to_be_found\n", ["function/handler.py:1", "requirements.txt"]),
    "missing module of its own": ("from .prices import quote\n", ["function/prices.py"]),
    "failure at import": ("x = 1\ny = {}['k']\n", ["function/handler.py:2", "KeyError"]),
    "exit at import": ("import sys\nsys.exit(0)\n", ["function/handler.py:2", "SystemExit"]),
    "lifespan that fails": (
        "from contextlib import asynccontextmanager\n"
        "@asynccontextmanager\nasync def lifespan(app):\n    raise OSError('no database')\n    yield\n"
        "async def handle() -> None: ...\n",
        ["no database"],
    ),
    "setting that a lifespan refuses": (
        "from contextlib import asynccontextmanager\n"
        "from faasbase.errors import SettingError\n"
        "@asynccontextmanager\nasync def lifespan(app):\n    raise SettingError('STOCK_URL', 'is odd')\n    yield\n"
        "async def handle() -> None: ...\n",
        ["start failed: setting STOCK_URL cannot be used: is odd"],
    ),
    "app that cannot be called": ("app = {}\n", ["function/handler.py", "ASGI"]),
    "lifespan that cannot be called": (
        "lifespan = 3\nasync def handle() -> None: ...\n",
        ["function/handler.py", "lifespan"],
    ),
    "event handler without an event": (
        "from faasbase import on_event\n@on_event('a')\nasync def one(order: dict) -> None: ...\n",
        ["one", "Event"],
    ),
    "event handler without a type": (
        "from faasbase import Event, on_event\n@on_event()\nasync def one(event: Event) -> None: ...\n",
        ["function/handler.py", "on_event"],
    ),
    "two handlers of one event": (
        "from faasbase import Event, on_event\n"
        "@on_event('a')\nasync def one(event: Event[dict]) -> None: ...\n"
        "@on_event('a')\nasync def two(event: Event[dict]) -> None: ...\n",
        ["one", "two", "a"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_handler_that_cannot_serve_stops_the_start(name: str) -> None:
    """One critical JSON line says where and what; the exit status is 1."""
    source, words = BROKEN[name]
    async with run_function(source).unwaited() as function:
        assert await function.exited() == 1
        critical = [line for line in function.logs() if line["level"] == "critical"]
        assert len(critical) == 1, function.output()
        assert critical[0]["message"].startswith("start failed: ")
        assert all(word in critical[0]["message"] for word in words), critical[0]["message"]
        assert not function.lock_file.exists()

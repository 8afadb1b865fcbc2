"""What the terminal of the embedded OpenFaaS makes of a function's JSON log lines."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.local_up import local_module, make_project, parsed_lines, up
from tests.wire import call

pytestmark = pytest.mark.anyio

HANDLER = """
import logging
from .prices import price_of

async def handle(item: str = "none") -> int:
    logging.getLogger(__name__).warning("looking up %s", item, extra={"shop": "the corner", "tries": 3})
    return price_of(item)
"""
PRICES = """
import json

def price_of(item):
    return json.loads(item)
"""
GROUP = """\
  + Exception Group Traceback (most recent call last):
  |   File "/lib/python3.11/asyncio/runners.py", line 190, in run
  |     return runner.run(main)
  |   File "/run/1-x/app/function/handler.py", line 4, in handle
  |     async with TaskGroup() as group:
  | ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)
  +-+---------------- 1 ----------------
    | Traceback (most recent call last):
    |   File "/run/1-x/app/function/handler.py", line 9, in work
    |     raise ValueError("no")
    | ValueError: no
    +------------------------------------
"""
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.fixture
def rendering(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return local_module("rendering", monkeypatch)


def rendered(rendering: ModuleType, text: str, project: Path = Path("/project")) -> str:
    """Return what the terminal shows of a line."""
    entry = rendering.log_entry(text)
    if entry is None:
        return text
    return str(rendering.readable(entry, rendering.Source("1-x", project / "fn", project)))


async def test_failing_handler_is_shown_with_its_own_frames_and_logged_as_json(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"shop": HANDLER})
    (project / "shop" / "prices.py").write_text(PRICES)
    with up(project) as local:
        answer = await call(local.port, "/function/shop?item=an-apple")
        assert answer.status == 500
        await local.says("JSONDecodeError")
        shown = local.output()
        kept = parsed_lines((await call(local.port, "/system/logs?name=shop")).text)
    assert 'WARNING looking up an-apple shop="the corner" tries=3 call_id=' in shown
    assert "shop |   " in shown
    assert "shop/handler.py:7, in handle\n" in shown
    assert "shop/prices.py:5, in price_of\n" in shown
    # Of the libraries only the place where it happened.
    assert "json/decoder.py:355, in raw_decode\n" in shown.replace("/usr/lib/python3.11/", "")
    assert "json/__init__.py" not in shown
    assert "/app/function/" not in shown
    assert '{"time"' not in shown
    entries = [json.loads(line["text"]) for line in kept if line["text"].startswith("{")]
    assert any("json/__init__.py" in entry.get("exception", "") for entry in entries)


def test_entry_is_one_line_of_time_level_message_and_fields(rendering: ModuleType) -> None:
    entry = {
        "time": "2026-01-02T03:04:05.678+00:00", "level": "info", "message": "sold", "logger": "function.handler",
        "function": "shop", "call_id": "abc", "trace_id": "t" * 32, "price": 1.5, "to": "A. Buyer", "tags": ["x"],
    }  # fmt: skip
    shown = rendered(rendering, json.dumps(entry))
    clock, rest = shown.split(" ", 1)
    assert time.strptime(clock, "%H:%M:%S")
    assert rest == 'INFO sold price=1.5 to="A. Buyer" tags=["x"] call_id=abc'


def test_access_line_says_each_thing_once(rendering: ModuleType) -> None:
    entry = {"level": "info", "logger": "faasbase.access", "message": "GET / 200", "method": "GET", "path": "/"}
    shown = rendered(rendering, json.dumps(entry | {"status": 200, "duration_seconds": 0.001}))
    assert shown == "INFO GET / 200 duration_seconds=0.001"


def test_group_of_exceptions_keeps_its_shape(rendering: ModuleType) -> None:
    shown = rendered(rendering, json.dumps({"level": "error", "message": "failed", "exception": GROUP}))
    assert "asyncio" not in shown
    assert "  |   fn/handler.py:4, in handle\n" in shown
    assert "    |   fn/handler.py:9, in work\n" in shown
    assert "ValueError: no" in shown


def test_place_of_a_start_error_is_the_projects(rendering: ModuleType) -> None:
    source = rendering.Source("1-x", Path("/project/shrink"), Path("/project"))
    assert source.mapped("function/handler.py:3: x in my/function/a.py:1") == (
        "shrink/handler.py:3: x in my/function/a.py:1"
    )
    assert source.mapped("no name (/tmp/run/1-x/app/function/more/a.py)") == "no name (shrink/more/a.py)"
    assert len(source.mapped("/" * 1_000_000)) < 5000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "plain",
        "{",
        "[1]",
        '{"a": 1}',
        '{"level": 3, "message": "x"}',
        "{" * 9000,
        '{"a":' * 90_000,
        "{" + "9" * 9000,
    ],
)
def test_other_lines_stay_as_they_are(rendering: ModuleType, text: str) -> None:
    assert rendered(rendering, text) == text


def test_nothing_steers_the_terminal_or_floods_it(rendering: ModuleType) -> None:
    entry = {"level": "info\x1b[2J", "message": "a\x1b]0;title\x07\nb\r" + "x" * 9999, "f\x9b": "\x1b[31m" + "y" * 9999}
    shown = rendered(rendering, json.dumps(entry | {f"n{number}": number for number in range(500)}))
    assert not set("\x1b\x07\r\x9b") & set(shown)
    assert len(shown) < 6000
    trace = 'Traceback (most recent call last):\n  File "/run/1-x/app/function/a.py", line 1, in f\n    f()\n' * 2000
    shown = rendered(
        rendering, json.dumps({"level": "error", "message": "deep", "exception": trace + "RecursionError"})
    )
    assert len(shown.splitlines()) < 70
    assert shown.endswith("RecursionError")


@given(
    st.dictionaries(st.text() | st.sampled_from(["exception", "stack", "time", "logger"]), JSON), st.text(), st.text()
)
def test_no_entry_is_too_odd_to_be_shown(fields: dict[str, Any], level: str, message: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        rendering = local_module("rendering", monkeypatch)
    shown = rendered(rendering, json.dumps(fields | {"level": level, "message": message}))
    assert all(each.isprintable() or each in "\n\t" for each in shown)

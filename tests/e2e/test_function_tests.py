"""A build runs the function's tests: they decide whether there is an image, and leave nothing in it."""

from __future__ import annotations

import uuid

import pytest

from deploy.images.building import Builder
from deploy.images.engine import EngineError
from tests.e2e.building import built, run_in

# A layer that is in the cache tells nothing: each session's code is new.
SESSION = uuid.uuid4().hex
HANDLER = f"""\
async def handle(name: str = "world") -> dict[str, str]:
    return {{"session": "{SESSION}", "message": f"Hello, {{name}}!"}}
"""
FAILING = "def test_total_with_discount() -> None:\n    assert 90 == 100\n"
PASSING = """\
import os
from pathlib import Path

import pytest

from faasbase.testing import captured_spans, client

from . import handler

HERE = Path(__file__).parent


def test_answers() -> None:
    with captured_spans() as spans, client(handler) as function:
        assert function.get("/", params={"name": "Ada"}).json()["message"] == "Hello, Ada!"
    assert [span.name for span in spans] == ["GET /"]


def test_writes_beside_itself() -> None:
    (HERE / "written-by-a-test").write_text("x")


def test_runs_as_the_user_of_functions() -> None:
    assert (os.getuid(), os.getgid()) == (12000, 12000)


@pytest.mark.parametrize("place", ["/home/app", "/home/app/index.py", "/opt/function", "/opt/venv"])
def test_cannot_touch_what_ships(place: str) -> None:
    assert not os.access(place, os.W_OK)
    with pytest.raises(PermissionError):
        os.chmod(place, 0o777)
"""
UNITTEST = """\
import unittest

class Pricing(unittest.TestCase):
    def test_rounds_to_cents(self) -> None:
        self.assertEqual(round(1.005, 1), {expected})
"""


def test_failing_test_fails_the_build_and_is_named(builder: Builder, base_image: str) -> None:
    """The log says which test, and what it saw."""
    source = {"handler.py": HANDLER, "pricing_test.py": FAILING}
    with pytest.raises(EngineError) as refused, built(builder, base_image, source):
        pass
    assert "FAILED function/pricing_test.py::test_total_with_discount" in str(refused.value)
    assert "assert 90 == 100" in str(refused.value)


def test_passing_tests_run_on_a_copy_and_leave_nothing(builder: Builder, base_image: str) -> None:
    """They run as the user that the function runs as; neither what they write nor what runs them is shipped."""
    source = {"handler.py": HANDLER, "tests/__init__.py": "", "handler_test.py": PASSING}
    with built(builder, base_image, source) as function:
        assert "7 passed" in function.log
        assert "handler_test.py" in run_in(builder, function.image, "ls", "function")
        left = ["-name", "written-by-a-test", "-o", "-name", "_pytest"]
        assert run_in(builder, function.image, "find", "/", "-xdev", *left) == ""


def test_tests_are_switched_off(builder: Builder, base_image: str) -> None:
    """With TEST_ENABLED=false there is an image whatever the tests say."""
    source = {"handler.py": HANDLER, "pricing_test.py": FAILING}
    with built(builder, base_image, source, TEST_ENABLED="false") as function:
        assert "tests are switched off" in function.log
        assert "FAILED" not in function.log


def test_command_of_the_users_own_decides(builder: Builder, base_image: str) -> None:
    """TEST_COMMAND is a line of shell, and runs whatever the tests are called."""
    source = {"handler.py": HANDLER, "checks.py": UNITTEST.format(expected="1.0")}
    command = "pytest -v function/checks.py && test -f function/handler.py"
    with built(builder, base_image, source, TEST_COMMAND=command) as function:
        assert "checks.py::Pricing::test_rounds_to_cents PASSED" in function.log


def test_failing_command_fails_the_build(builder: Builder, base_image: str) -> None:
    """Tests in the form of the standard library fail a build as others do."""
    source = {"handler.py": HANDLER, "checks.py": UNITTEST.format(expected="2.0")}
    command = "python3 -m unittest -v function.checks"
    with pytest.raises(EngineError) as refused, built(builder, base_image, source, TEST_COMMAND=command):
        pass
    assert "FAIL: test_rounds_to_cents" in str(refused.value)

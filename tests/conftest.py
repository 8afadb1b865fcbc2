"""What every test shares: the event loop, the processes' output in failures, and the closing line about tools."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import child
from tests.servers_kafka import kafka as kafka
from tests.servers_kafka import make_topic as make_topic
from tests.servers_nats import nats_server as nats_server
from tests.servers_s3 import S3Server

END_TO_END = Path(__file__).parent / "e2e"
LEFT_OUT = pytest.StashKey[Counter[str]]()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, as the functions do."""
    return "asyncio"


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Give the S3 server of all tests that do not change it; each has a prefix of its own."""
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known and start the count of what is left out."""
    config.addinivalue_line("markers", "tool(name): needs the program *name* on PATH, or is left out")
    config.addinivalue_line("markers", "checkout(variable): needs the repository that *variable* names, or is left out")
    config.stash[LEFT_OUT] = Counter()


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the end-to-end tests out unless they are named: they build images."""
    named = (config.invocation_params.dir / argument.partition("::")[0] for argument in config.args)
    if collection_path != END_TO_END or any(path.resolve().is_relative_to(END_TO_END) for path in named):
        return None
    return True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of real OpenFaaS tools that no package registry has and this machine neither."""
    missing = {item: tool for item in items if (tool := _missing_tool(item))}
    for item, tool in missing.items():
        config.stash[LEFT_OUT][f"{tool}: {item.location[0]}"] += 1
    items[:] = [item for item in items if item not in missing]
    config.hook.pytest_deselected(items=list(missing))


def _missing_tool(item: pytest.Item) -> str | None:
    tools = [str(mark.args[0]) for mark in item.iter_markers("tool")]
    checkouts = [str(mark.args[0]) for mark in item.iter_markers("checkout")]
    missing = [name for name in tools if shutil.which(name) is None]
    return next(iter([*missing, *(f"${name}" for name in checkouts if not os.environ.get(name))]), None)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Forget the processes of the test before."""
    child.started.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show in the report of a failure what its processes wrote."""
    report = yield
    if report.failed:
        for process in child.started:
            report.sections.append((f"output of process {process.pid}", process.tail()))
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Hand the count of a pytest-xdist worker to its controller."""
    output: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        left_out = session.config.stash[LEFT_OUT]
        output["left_out"] = dict(left_out)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take the count from a worker; every worker collects the same tests."""
    left_out: Counter[str] = Counter(node.workeroutput.get("left_out", {}))
    node.config.stash[LEFT_OUT] = left_out


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say loudly which tests did not run because a tool is missing."""
    if left_out := config.stash[LEFT_OUT]:
        tests = ", ".join(f"{place} ({count})" for place, count in sorted(left_out.items()))
        terminalreporter.write_line(f"NOT RUN, not on this machine: {tests}", red=True, bold=True)

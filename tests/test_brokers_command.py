"""``python -m deploy.brokers``: what the command finds, and that nothing stays when it ends."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.brokers import jars
from deploy.brokers.processes import ServerError
from tests.staging import ROOT

COMMAND = [sys.executable, "-m", "deploy.brokers"]
RUN_SECONDS = 60.0
END_SECONDS = 15.0
LOOK = """
import os, subprocess, sys
print(*(f"{name}={os.environ[name]}" for name in ("KAFKA_URL", "NATS_URL", "REDIS_URL")), sep="\\n", flush=True)
subprocess.run(["kcat", "-q", "-b", os.environ["KAFKA_URL"].removeprefix("kafka://"), "-L"])
sys.exit(5)
"""
LINGER = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: exit(7))
print("lingering", flush=True)
time.sleep(60)
"""


def started(folder: Path, *command: str) -> subprocess.Popen[str]:
    """Run *command* beside brokers that have their files below *folder*."""
    environ = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.Popen([*COMMAND, "--", *command], cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True)


def pids_of(output: str) -> list[int]:
    return [int(pid) for pid in re.findall(r"process (\d+)\)", output)]


def alive(pid: int) -> bool:
    """Tell whether *pid* runs; one that has ended and was not asked about does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def ended(pids: Sequence[int]) -> bool:
    until = time.monotonic() + END_SECONDS
    while any(map(alive, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(map(alive, pids))


@contextmanager
def lingering(folder: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """Start brokers with a command that goes on, and give the process and the ids of the brokers."""
    with started(folder, sys.executable, "-c", LINGER) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or "lingering" not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        try:
            yield process, pids_of("".join(lines))
        finally:
            process.kill()


def test_command_finds_the_brokers_filled_and_its_status_is_ours(tmp_path: Path) -> None:
    with started(tmp_path, sys.executable, "-c", LOOK) as process:
        output, _ = process.communicate(timeout=RUN_SECONDS)
    assert process.returncode == 5
    found = re.findall(r"^(\w+_URL)=(\w+)://127\.0\.0\.1:\d+", output, re.MULTILINE)
    assert found == [("KAFKA_URL", "kafka"), ("NATS_URL", "nats"), ("REDIS_URL", "redis")]
    assert 'topic "orders" with 12 partitions' in output
    assert len(pids_of(output)) == 3
    assert ended(pids_of(output))
    assert not list(tmp_path.iterdir())


def test_sigterm_ends_the_command_and_then_the_brokers(tmp_path: Path) -> None:
    with lingering(tmp_path) as (process, pids):
        assert len(pids) == 3
        assert all(map(alive, pids))
        process.send_signal(signal.SIGTERM)
        assert process.wait(END_SECONDS) == 7
        assert ended(pids)


def test_brokers_end_with_a_process_that_was_killed(tmp_path: Path) -> None:
    with lingering(tmp_path) as (process, pids):
        process.kill()
        process.wait(END_SECONDS)
        assert ended(pids)


@pytest.mark.parametrize("arguments", [[], ["true"], ["--"]])
def test_command_is_wanted(arguments: Sequence[str]) -> None:
    done = subprocess.run([*COMMAND, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: ")


def test_jars_are_fetched_once_by_two_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_JARS", raising=False)
    monkeypatch.setattr(jars, "CACHE", tmp_path / "kafka")
    with ThreadPoolExecutor(2) as pool:
        first, second = (task.result(60) for task in [pool.submit(jars.kafka_jars) for _ in range(2)])
    assert first == second
    assert sorted(path.name for path in (tmp_path / "kafka").iterdir()) == [first.name, "lock"]
    assert any(path.name.startswith("kafka_2.13-") for path in first.iterdir())


def test_jars_of_ones_own_are_taken_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_JARS", str(tmp_path))
    assert jars.kafka_jars() == tmp_path


def test_absent_maven_is_named_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_JARS", raising=False)
    monkeypatch.setattr(jars, "CACHE", tmp_path / "kafka")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ServerError, match=r"mvn.*\.ci/install brokers"):
        jars.kafka_jars()


def test_maven_that_takes_too_long_is_an_error_of_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KAFKA_JARS", raising=False)
    monkeypatch.setattr(jars, "CACHE", tmp_path / "kafka")
    monkeypatch.setattr(jars, "FETCH_SECONDS", 0.1)
    slow = tmp_path / "mvn"
    slow.write_text("#!/bin/sh\nexec sleep 9\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(ServerError, match=r"within 0\.1 s"):
        jars.kafka_jars()


@pytest.mark.parametrize(("given", "expected"), [([], False), (["BROKERS=0"], False), (["BROKERS=1"], True)])
def test_brokers_are_started_where_they_are_asked_for(given: Sequence[str], expected: bool) -> None:
    command = ["make", "-n", "-o", ".venv", "up", *given]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    assert ("deploy.brokers" in done.stdout) is expected

"""The jars of Apache Kafka, fetched once a version by Maven."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

from .processes import SHOWN_CHARACTERS, ServerError

POM = Path(__file__).with_name("pom.xml")
CACHE = Path(__file__).resolve().parents[2] / "build" / "kafka"
FETCH_SECONDS = 300.0


def kafka_jars() -> Path:
    """Return the folder of the jars: ``$KAFKA_JARS``, or one in ``build`` that is filled the first time."""
    if given := os.environ.get("KAFKA_JARS"):
        return Path(given)
    folder = CACHE / "-".join(re.findall(r"<\w+\.version>([^<]+)<", POM.read_text()))
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        # Several test processes may want them at the same time.
        with (CACHE / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.exists():
                _fetch(folder)
    return folder


def _fetch(folder: Path) -> None:
    new = folder.with_name(f"{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    command = ["mvn", "-q", "-B", "-U", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={new}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)
    except FileNotFoundError as error:
        raise ServerError("there is no `mvn` to fetch Kafka with: .ci/install brokers") from error
    except subprocess.TimeoutExpired as error:
        raise ServerError(f"Maven has not fetched Kafka within {FETCH_SECONDS:g} s: try again") from error
    if done.returncode:
        raise ServerError(f"Maven has no Kafka for us:\n{(done.stdout + done.stderr)[-SHOWN_CHARACTERS:]}")
    new.rename(folder)

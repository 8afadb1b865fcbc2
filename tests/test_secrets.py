"""Secrets are handles: what the file holds now, whoever replaces it and however, and nothing of it anywhere else."""

from __future__ import annotations

import copy
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest

from faasbase.errors import SecretMissingError, StartError
from faasbase.redaction import Redactor
from faasbase.secret_files import MAX_SECRET_BYTES
from faasbase.secrets import Secret, secret, use_directory
from tests.otlp_sink import otlp_sink
from tests.processes import run_function
from tests.staging import BASE
from tests.wire import call

CANARY = "canary-4711-xyz"
NEXT_CANARY = "canary-4712-xyz"


def value_of(handle: Secret) -> str:
    """Return what the secret holds now."""
    return handle.reveal().get_secret_value()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with one secret, ``key``."""
    (tmp_path / "key").write_text(f"{CANARY}\n")
    return tmp_path


class Mount:
    """A volume as kubelet writes it: files are links into a folder, which is a link that is turned at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._numbers = count()

    def write(self, **values: str) -> None:
        """Put *values* in place of those before, and remove these."""
        data, before = self.folder / "..data", None
        if data.is_symlink():
            before = self.folder / data.readlink()
        new = self.folder / f"..2026_{next(self._numbers)}"
        new.mkdir()
        for name, value in values.items():
            (new / name).write_text(value)
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(Path("..data") / name)
        (self.folder / "..data_tmp").symlink_to(new.name)
        (self.folder / "..data_tmp").rename(data)
        if before:
            for file in before.iterdir():
                file.unlink()
            before.rmdir()


def write_in_place(path: Path, value: str) -> None:
    """Write as an editor or ``kubectl cp`` does."""
    path.write_text(value)


def write_and_rename(path: Path, value: str) -> None:
    """Write as Vault's agent does."""
    path.with_name(".new").write_text(value)
    path.with_name(".new").rename(path)


def test_value_is_what_the_file_holds_without_its_last_newline(folder: Path) -> None:
    """Tools end files with one; blanks and newlines inside are the secret's own."""
    (folder / "odd").write_text(" a\n\tb \r\n\n")
    assert value_of(Secret("key", folder)) == CANARY
    assert value_of(Secret("odd", folder)) == " a\n\tb "


def test_handle_shows_its_name_only(folder: Path) -> None:
    """However it is printed, copied or taken apart; and it goes into no other process."""
    handle = Secret("key", folder)
    handle.reveal()
    shown = [
        repr(handle),
        str(handle),
        f"{handle}",
        repr(vars(handle)),
        repr(handle.reveal()),
        repr(copy.copy(vars(handle))),
    ]
    assert repr(handle) == "Secret('key')"
    assert "canary" not in "".join(shown)
    with pytest.raises(TypeError):
        pickle.dumps(handle)


@pytest.mark.parametrize(
    "name", ["", "..", "../key", "a/b", "a..b", ".hidden", "a b", "ключ", "key\n", "k" * 300, "/etc/passwd"]
)
def test_name_that_is_none_is_refused_and_not_repeated(folder: Path, name: str) -> None:
    """Where the secret itself was given in place of its name, the message must not show it."""
    with pytest.raises(ValueError, match="must be the name of a secret") as caught:
        Secret(name, folder)
    assert len(name) < 3 or name not in str(caught.value)


@pytest.mark.parametrize("write", [write_in_place, write_and_rename])
def test_replaced_file_is_read_at_the_next_use(folder: Path, write: Callable[[Path, str], None]) -> None:
    """Also where the new value is as long as the old one and follows within the tick of a clock."""
    handle = Secret("key", folder)
    for number in range(300):
        write(folder / "key", f"canary-{number:04}")
        assert value_of(handle) == f"canary-{number:04}"


def test_turned_link_is_followed(tmp_path: Path) -> None:
    """Kubernetes turns one link for all files of a volume."""
    mount = Mount(tmp_path)
    mount.write(key=CANARY, other="another")
    handle = Secret("key", tmp_path)
    assert value_of(handle) == CANARY
    mount.write(key=NEXT_CANARY, other="another")
    assert value_of(handle) == NEXT_CANARY


def test_file_that_has_settled_is_not_read_again(folder: Path) -> None:
    """A use costs a look at the file's state; one just written may be written again within the tick of a clock."""
    handle = Secret("key", folder)
    assert handle.reveal() is not handle.reveal()
    time.sleep(2.6)
    handle.reveal()
    assert handle.reveal() is handle.reveal()
    write_and_rename(folder / "key", NEXT_CANARY)
    assert value_of(handle) == NEXT_CANARY


def test_threads_read_whole_values_while_it_is_replaced(tmp_path: Path) -> None:
    """No use fails in the middle of a turn, and none sees an old value after a newer one."""
    mount = Mount(tmp_path)
    mount.write(key="canary-00000")
    handle, ended = Secret("key", tmp_path, grace_seconds=0.0), threading.Event()
    seen: list[list[str]] = [[] for _ in range(4)]
    failures: list[BaseException] = []

    def read(values: list[str]) -> None:
        try:
            while not ended.is_set():
                values.append(value_of(handle))
        except BaseException as exc:
            failures.append(exc)

    readers = [threading.Thread(target=read, args=(values,)) for values in seen]
    for reader in readers:
        reader.start()
    for number in range(200):
        mount.write(key=f"canary-{number:05}")
    ended.set()
    for reader in readers:
        reader.join(10)
    assert failures == []
    assert value_of(handle) == "canary-00199"
    assert all(len(value) == 12 for values in seen for value in values)


def test_refresh_tells_whether_another_value_is_there(folder: Path) -> None:
    """For whoever was refused: there is no sense in trying again with the same one."""
    handle = Secret("key", folder)
    used = handle.reveal()
    assert handle.refresh() is False
    write_in_place(folder / "key", NEXT_CANARY)
    assert handle.refresh() is True
    assert handle.refresh() is False
    assert handle.refresh(used) is True, "somebody else has read it anew meanwhile"
    (folder / "key").unlink()
    assert Secret("key", folder).refresh() is False


def test_value_outlives_its_file_for_a_short_time(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Then it is missing, with one line for the outage and one for its end."""
    caplog.set_level(logging.INFO, "faasbase.secrets")
    now = [100.0]
    handle = Secret("key", folder, setting="SHOP_URL", clock=lambda: now[0])
    handle.reveal()
    (folder / "key").unlink()
    assert value_of(handle) == CANARY
    now[0] += 4.9
    assert value_of(handle) == CANARY
    now[0] += 0.2
    for _ in range(3):
        with pytest.raises(
            SecretMissingError, match="secret key, which setting SHOP_URL names, cannot be read: No such"
        ):
            handle.reveal()
    write_in_place(folder / "key", NEXT_CANARY)
    assert value_of(handle) == NEXT_CANARY
    lines = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert [level for level, _ in lines] == ["ERROR", "INFO", "INFO"]
    assert "canary" not in str(lines)


def test_missing_secret_is_an_answer_that_names_nothing(folder: Path) -> None:
    """At start it stops the start; in a call it is 503, to be tried again."""
    with pytest.raises(SecretMissingError) as caught:
        Secret("absent", folder).reveal()
    error = caught.value
    assert isinstance(error, StartError)
    assert (error.status, error.headers) == (503, {"Retry-After": "5"})
    assert b"absent" not in error.body()
    assert error.name == "absent"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b" \n\n", "it is empty"),
        (b"\xff\xfe", "no text in UTF-8"),
        (b"x" * (MAX_SECRET_BYTES + 1), "more than 65536 bytes"),
    ],
)
def test_content_that_is_no_secret_is_missing(tmp_path: Path, content: bytes, reason: str) -> None:
    """Each with its reason; the largest that may be is taken."""
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(SecretMissingError, match=reason) as caught:
        Secret("key", tmp_path).reveal()
    assert caught.value.__cause__ is None
    (tmp_path / "key").write_bytes(b"x" * MAX_SECRET_BYTES)
    assert len(value_of(Secret("key", tmp_path))) == MAX_SECRET_BYTES


def test_odd_files_are_missing_and_nobody_waits_for_them(tmp_path: Path) -> None:
    """A pipe, a folder, a link to nowhere, to itself, and one that leads out of the secrets' folder."""
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (tmp_path / "outside").write_text(CANARY)
    os.mkfifo(secrets / "pipe")
    (secrets / "folder").mkdir()
    (secrets / "nowhere").symlink_to(secrets / "nothing")
    (secrets / "itself").symlink_to(secrets / "itself")
    (secrets / "out").symlink_to(tmp_path / "outside")
    for name in ("pipe", "folder", "nowhere", "itself", "out"):
        with pytest.raises(SecretMissingError):
            Secret(name, secrets).reveal()


def test_secret_is_looked_for_where_the_process_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A handle made before finds it too; without a process the environment tells."""
    handle = secret("key")
    monkeypatch.setenv("FAAS_SECRETS_DIR", str(folder / "nowhere"))
    with pytest.raises(SecretMissingError):
        handle.reveal()
    before = use_directory(folder)
    try:
        assert value_of(handle) == CANARY
        with pytest.raises(SecretMissingError, match="secret absent"):
            secret("absent")
    finally:
        use_directory(before)


def test_value_is_masked_from_its_first_use_on(folder: Path) -> None:
    """The redactor looks at files every half minute, and a rotated value may be logged at once; the old one stays."""
    redactor = Redactor(folder, clock=lambda: 1000.0)
    redactor.text("the files have been read")
    handle = Secret("key", folder)
    write_in_place(folder / "key", "canary-next")
    handle.reveal()
    write_in_place(folder / "key", "canary-last")
    handle.reveal()
    assert redactor.text("canary-next canary-last") == "*** ***"


def test_import_costs_no_pydantic() -> None:
    """Settings and logs need this module at each start."""
    program = "import faasbase.secrets, sys; print('pydantic' in sys.modules, 'fastapi' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(BASE)}, capture_output=True, text=True, timeout=30
    )
    assert run.stdout.split() == ["False", "False"]


HANDLER = """
import logging
from faasbase import counter, secret, span
from fastapi import APIRouter

router = APIRouter()
key = secret("key")
USES = counter("uses", "Uses of the key.", ("handle",))


@router.get("/use")
async def use() -> str:
    USES.inc(handle=repr(key))
    with span("use", handle=repr(key), value=str(key.reveal())):
        logging.getLogger("shop").warning("using %s, %r", key, key.reveal(), extra={"key": key.reveal(), "handle": key})
    return repr([key, key.reveal(), vars(key)])


@router.get("/leak")
async def leak() -> None:
    value = key.reveal().get_secret_value()
    with span("leak", value=value):
        logging.getLogger("shop").warning("leaked %s", value, extra={"leaked": [value]})
    raise RuntimeError(f"refused with {value}")
"""


@pytest.mark.anyio
async def test_missing_secret_stops_the_start_by_name() -> None:
    """One line; nothing answers calls without it."""
    async with run_function(HANDLER).unwaited() as function:
        assert await function.exited() == 1
        lines = [line for line in function.logs() if line["level"] in ("error", "critical")]
        assert [line["message"] for line in lines] == [
            "start failed: secret key cannot be read: No such file or directory"
        ]


@pytest.mark.anyio
async def test_secret_that_vanishes_is_an_outage_of_its_calls(tmp_path: Path) -> None:
    """503 after the grace, one line, and no restart is needed when it is back."""
    (tmp_path / "key").write_text(CANARY)
    source = HANDLER.replace('secret("key")', '__import__("faasbase.secrets").secrets.Secret("key", grace_seconds=0)')
    async with run_function(source, FAAS_SECRETS_DIR=str(tmp_path)) as function:
        await function.ready()
        assert (await call(function.port, "/use")).status == 200
        (tmp_path / "key").unlink()
        gone = [await call(function.port, "/use") for _ in range(3)]
        (tmp_path / "key").write_text(NEXT_CANARY)
        back = await call(function.port, "/use")
        lines = [line for line in function.logs() if "cannot be read" in line["message"]]
    assert [(answer.status, answer.header("retry-after")) for answer in gone] == [(503, "5")] * 3
    assert "key" not in gone[0].json()["detail"]
    assert (back.status, len(lines), lines[0]["level"]) == (200, 1, "error")


@pytest.fixture
def sink() -> Iterator[SimpleNamespace]:
    """Receive spans."""
    with otlp_sink() as receiver:
        yield SimpleNamespace(url=receiver.url, receiver=receiver)


@pytest.mark.anyio
async def test_canary_is_found_nowhere(tmp_path: Path, sink: SimpleNamespace) -> None:
    """Neither before nor right after a rotation, in nothing that the process writes, answers, measures or traces."""
    mount = Mount(tmp_path)
    mount.write(key=CANARY)
    emitted = []
    env = {"FAAS_SECRETS_DIR": str(tmp_path), "OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, "LOG_LEVEL": "DEBUG"}
    async with run_function(HANDLER, **env) as function:
        await function.ready()
        for value in (CANARY, NEXT_CANARY):
            mount.write(key=value)
            answers = [await call(function.port, path) for path in ("/use", "/leak", "/openapi.json", "/none")]
            assert [answer.status for answer in answers] == [200, 500, 200, 404]
            emitted += [answer.text + str(answer.headers) for answer in answers]
        emitted.append((await call(function.metrics_port, "/metrics")).text)
        sink.receiver.wait_for(lambda spans: len([span for span in spans if span.name == "leak"]) == 2)
        assert function.stop() == 0
        emitted += [function.output(), *sink.receiver.raw]
    everything = json.dumps(emitted)
    assert "Secret('key')" in everything
    assert everything.count("leaked ***") == 2
    assert "canary" not in everything
    assert "-xyz" not in everything

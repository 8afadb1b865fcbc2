"""A start compiles nothing, and writes nothing outside of ``/tmp``."""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import source_from_cache

import httpx2
import pytest

from deploy.images.engine import Engine
from deploy.images.pods import empty_dir, pod_options
from deploy.images.project import ROOT
from tests.e2e.conftest import Build
from tests.e2e.containers import Container, new_name
from tests.pictures import encoded, photo

SAMPLE = ROOT / "functions" / "image-processor"
CALL_SECONDS = 10.0
# What engines make in the root of a container: places to mount, a line for the user, its name and its network.
ENGINES_OWN = re.compile(
    r"[AC] /(tmp|etc|etc/(passwd|group|mtab|hosts|hostname|resolv\.conf)|run|run/(\.containerenv|secrets))"
)
# Opening, and all that changes a folder or what is known of a file.
TRACED = (
    "open,openat,openat2,creat,truncate,mkdir,mkdirat,mknod,mknodat,rename,renameat,renameat2,link,linkat,symlink",
    "symlinkat,unlink,unlinkat,rmdir,chmod,fchmodat,chown,lchown,fchownat,utime,utimes,futimesat,utimensat",
)
CALL = re.compile(r"^(\w+)\((.*)\) += (-?\d+|\?)", re.MULTILINE)
PATH = re.compile(r'(?:(?:AT_FDCWD|\d+)<([^>]*)>, )?"((?:[^"\\]|\\.)*)"')
FOR_WRITING = re.compile(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND|TMPFILE)")
MAY_BE_WRITTEN = re.compile(r"/tmp(/.*)?|/dev/null")


@dataclass(frozen=True)
class Call:
    """A system call on a path, as strace tells it."""

    name: str
    arguments: str
    result: str

    @property
    def paths(self) -> Sequence[str]:
        """Return the paths from the root on, a rename's both; relative ones begin at the function's folder."""
        found = [posixpath.normpath(posixpath.join("/home/app", *path)) for path in PATH.findall(self.arguments)]
        # What a symbolic link points to is not touched.
        return found[-1:] if self.name.startswith("symlink") else found

    @property
    def writes(self) -> bool:
        """Tell whether it would change something, whether or not it may."""
        return not self.name.startswith("open") or bool(FOR_WRITING.search(PATH.sub("", self.arguments)))


@pytest.mark.parametrize(
    ("line", "paths"),
    [
        ('rename("/tmp/a", "b") = 0', ["/tmp/a", "/home/app/b"]),
        ('renameat2(AT_FDCWD</srv>, "a", 5</opt>, "b\\"c", RENAME_NOREPLACE) = 0', ["/srv/a", '/opt/b\\"c']),
        ('linkat(AT_FDCWD</tmp>, "a", AT_FDCWD</tmp>, "/usr/b", 0) = 0', ["/tmp/a", "/usr/b"]),
        ('symlinkat("/usr/a", AT_FDCWD</tmp>, "b") = 0', ["/tmp/b"]),
    ],
)
def test_both_paths_of_a_call_are_looked_at(line: str, paths: Sequence[str]) -> None:
    """Whatever is moved out of ``/tmp`` is written where it comes to lie."""
    (found,) = CALL.findall(line)
    call = Call(*found)
    assert call.writes
    assert list(call.paths) == paths


@pytest.mark.parametrize("user", [12000, 0])
def test_a_start_writes_nothing_outside_tmp(engine: Engine, build: Build, user: int) -> None:
    """
    The root can be written, and bytecode may be: where it is missing or not valid, Python would leave it there.

    The function's own user is kept from it by the permissions of the files, and root by nothing.
    """
    image = build(SAMPLE, "image-processor")
    options = (f"--user={user}:{user}", "--env=PYTHONDONTWRITEBYTECODE=")
    with _run(engine, image, *options, read_only=False) as container:
        _serve(container)
        assert container.stop() == 0
        assert _changes(container) == []


@pytest.mark.parametrize("url", ["kafka://127.0.0.1:9/orders?group=worker", "nats://127.0.0.1:9/ORDERS?durable=worker"])
def test_a_consumers_start_writes_nothing_either(engine: Engine, build: Build, url: str) -> None:
    """What only some functions import has bytecode as well; there is no broker, and that ends the start."""
    image = build(ROOT / "functions" / "order-worker", "order-worker")
    settings = {"EVENTS_URL": url, "EVENTS_START_TIMEOUT": "2s", "PYTHONDONTWRITEBYTECODE": ""}
    options = [f"--env={name}={value}" for name, value in settings.items()]
    with _run(engine, image, "--user=0:0", *options, read_only=False) as container:
        engine.run("wait", container.name)
        assert container.state().exit_code == 1
        assert "setting EVENTS_URL cannot be used: nobody there has answered" in container.output()
        assert _changes(container) == []


def test_a_start_opens_no_file_for_writing_and_compiles_no_module(engine: Engine, build: Build) -> None:
    """Not even in vain, seen by the system calls of a container whose root is read-only."""
    image = build(SAMPLE, "traced", ADDITIONAL_PACKAGE="strace")
    # A file for each thread: in one, the lines of two would be broken up.
    command = ["strace", "-ff", "-y", "-s", "4096", "-e", f"trace={','.join(TRACED)}", "-o", "/tmp/calls"]
    with _run(engine, image, command=[*command, "python", "index.py"]) as container:
        _serve(container)
        container.exec("sh", "-c", "kill -TERM $(cat /proc/1/task/1/children)")
        engine.run("wait", container.name)
        assert container.state().exit_code == 0
        seen = "".join(path.read_text() for path in container.tmp.glob("calls.*"))
    calls = [Call(*found) for found in CALL.findall(seen)]
    written = {path for call in calls if call.writes for path in call.paths}
    assert written
    assert {path for path in written if not MAY_BE_WRITTEN.fullmatch(path)} == set()
    opened = [call for call in calls if call.name.startswith("open") and call.result >= "0"]
    read = {path for call in opened for path in call.paths}
    compiled = {source_from_cache(path) for path in read if path.endswith(".pyc")}
    assert len(compiled) > 500
    # Some libraries look into sources; the launcher is a script, and those Python compiles each time, in memory.
    assert {path for path in read if path.endswith(".py")} - compiled == {"/home/app/index.py"}


def _changes(container: Container) -> list[str]:
    """Return what differs from the image in its root, but for what is the engine's doing."""
    changes = container.engine.run("diff", container.name).splitlines()
    return [change for change in changes if not ENGINES_OWN.fullmatch(change)]


def _serve(container: Container) -> None:
    """Have it do all that it can: work on an image, answer probes, describe itself, show its metrics."""
    container.wait_healthy()
    with httpx2.Client(base_url=container.url, timeout=CALL_SECONDS) as client:
        kind = {"Content-Type": "image/jpeg"}
        assert client.post("/?op=resize:20x15", content=encoded(photo(), "JPEG"), headers=kind).status_code == 200
        assert client.post("/?op=nonsense", content=b"").status_code == 422
        for path in ("/_/health", "/_/ready", "/openapi.json", "/docs", container.metrics_url):
            assert client.get(path).status_code == 200, path


@contextlib.contextmanager
def _run(
    engine: Engine, image: str, *options: str, read_only: bool = True, command: Sequence[str] = ()
) -> Iterator[Container]:
    """Run *command* in *image* as closed as a pod, but for *options* and, without *read_only*, a root to write to."""
    with empty_dir() as tmp:
        given = pod_options(engine, name := new_name(), tmp)
        given = [option for option in given if read_only or not option.startswith("--read-only")]
        container = Container(engine, name, tmp)
        try:
            engine.run("run", "--detach", *given, *options, image, *command)
            yield container
        finally:
            container.remove()

"""``local outdated`` trusts neither the name of the repository that it is given nor what it fetches from there."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from tests.local_up import local_module, wait_until
from tests.pulled_template import PULLED, Repository, pulled, refused, told, write_meta


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture
def project(tmp_path: Path, repository: Repository) -> Path:
    return pulled(tmp_path, repository)


@pytest.mark.parametrize(
    "repository_name",
    [
        "",
        "-u./canary.sh",
        "--upload-pack=./canary.sh",
        "ext::./canary.sh",
        "fd::0",
        "ssh://-oProxyCommand=./canary.sh/x",
        "ssh://git@@-oProxyCommand=./canary.sh/x",
        "ssh://git@-oProxyCommand=./canary.sh/x",
        "git@-oProxyCommand=./canary.sh:x",
        "-oProxyCommand=./canary.sh@host:x",
        "host:path",
        "file:///etc",
        "git://127.0.0.1/x",
        "http://127.0.0.1/x",
        "https://",
        "https:///x",
        "https://127.0.0.1/x\n--upload-pack=./canary.sh",
        "../nowhere",
        "\0",
    ],
)
def test_what_is_no_repository_is_never_given_to_git(
    project: Path, repository: Repository, repository_name: str
) -> None:
    script = project / "canary.sh"
    script.write_text("#!/bin/sh\ntouch canary\n")
    script.chmod(0o755)
    write_meta(project, repository=repository_name)
    assert "is no repository: " in refused(project)
    assert not list(project.rglob("canary"))


@pytest.mark.parametrize(
    "address",
    [
        "https://example.com/x.git",
        "https://user:secret@example.com/x",
        "ssh://git@example.com:2222/x",
        "ssh://[::1]/x",
        "git@example.com:owner/x.git",
    ],
)
def test_address_that_git_fetches_over_the_network_is_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str
) -> None:
    assert local_module("repositories", monkeypatch).address_of(address, tmp_path) == address


def test_folder_whose_name_is_an_option_is_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "-x").mkdir()
    assert local_module("repositories", monkeypatch).address_of("-x", tmp_path) == str(tmp_path / "-x")


def test_address_without_a_server_is_one_line_without_its_password(project: Path) -> None:
    with socket.socket() as taken:
        # Bound and not listening: connections are refused.
        taken.bind(("127.0.0.1", 0))
        write_meta(project, repository=f"https://user:secret@127.0.0.1:{taken.getsockname()[1]}/x")
        line = refused(project)
    assert "unable to access" in line
    assert "secret" not in line


def test_server_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    repositories = local_module("repositories", monkeypatch)
    monkeypatch.setattr(repositories, "GIT_SECONDS", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"https://127.0.0.1:{silent.getsockname()[1]}/x"
        started = time.monotonic()
        with pytest.raises(repositories.RepositoryError, match="has not answered within 1 s"):
            repositories.clone(address, "", tmp_path / "clone")
        assert time.monotonic() - started < 10
        # git's helpers are killed with it, and take a moment to go.
        wait_until(lambda: not runs(address), "gone", timeout_seconds=3.0)


def test_links_in_the_repository_lead_nowhere(project: Path, repository: Repository, tmp_path: Path) -> None:
    (tmp_path / "private.md").write_text("## Private\n\n- private\n")
    (repository.folder / "CHANGELOG.md").unlink()
    (repository.folder / "CHANGELOG.md").symlink_to(tmp_path / "private.md")
    (repository.folder / PULLED / "index.py").unlink()
    (repository.folder / PULLED / "index.py").symlink_to("/dev/zero")
    repository.commit()
    output = told(project)
    assert "index.py" in output
    assert "rivate" not in output


def test_nothing_reaches_the_terminal_that_it_would_obey(project: Path, repository: Repository) -> None:
    (repository.folder / "CHANGELOG.md").write_text("## \x1b]0;title\x07\n\n- \x1b[31mred\r\x9b2J\n")
    repository.commit()
    output = told(project)
    assert "31mred" in output
    assert all(character.isprintable() or character == "\n" for character in output)


def runs(argument: str) -> bool:
    """Tell whether a process of this machine has *argument* on its command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if argument.encode() in path.read_bytes():
                return True
        except OSError:
            # Ended since it was listed.
            continue
    return False

"""Take what a template comes from into a folder, by git, without trusting the name that it is given by."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

GIT_SECONDS = 120.0
HOST = r"[\w\[][^\s@/]*"
REMOTE = re.compile(rf"(?:https|ssh)://(?:[^\s@/]*@)?{HOST}(?:/\S*)?|[\w.-]+@{HOST}:\S+")
"""https, ssh, and git@host:path; a host that begins with a hyphen would be an option of ssh."""
COMMIT = re.compile(r"sha-([0-9a-f]{7,40})")
"""How faas-cli is asked for a commit."""
FULL_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
CREDENTIALS = re.compile(r"(?<=://)[^\s@/]+@")
# No hooks and no links: what is fetched is looked at and never run, and leads nowhere else.
SETTINGS = ("core.hooksPath=/dev/null", "core.symlinks=false", "core.fsmonitor=false", "advice.detachedHead=false")
ENVIRONMENT = {
    "GIT_ALLOW_PROTOCOL": "https:ssh:file",
    # Who is asked for a password waits for ever.
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "true",
    "GCM_INTERACTIVE": "never",
    "LC_ALL": "C",
}
BATCH_SSH = "ssh -o BatchMode=yes -o ConnectTimeout=20"
LEFT_OUT = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES")
"""What git sets for its hooks, and what would turn every command to another repository."""


class RepositoryError(Exception):
    """The repository cannot be taken; the message is one line."""


def address_of(repository: str, project: Path) -> str:
    """
    Return what git may be given for *repository*; a path is relative to *project*.

    Raises:
        RepositoryError: It is nothing of the kind, as an option of git or a transport helper (``ext::sh -c …``) is not.
    """
    # A path made absolute begins with a slash, which neither an option nor a helper's name does.
    if repository and "\0" not in repository and (project / repository).is_dir():
        return str((project / repository).resolve())
    if not REMOTE.fullmatch(repository):
        raise RepositoryError(
            f"{without_credentials(repository)!r} is no repository: https://…, ssh://…, git@host:path or a folder"
        )
    return repository


def clone(address: str, ref: str, folder: Path) -> None:
    """Clone *address* into *folder*, at its default branch or at *ref*: a branch, a tag, or ``sha-<commit>``."""
    if ref.startswith("-"):
        raise RepositoryError(f"{ref!r} is no branch, tag or sha-<commit>")
    commit = COMMIT.fullmatch(ref)
    # A short commit is known to nobody but the whole history.
    depth = ["--no-checkout"] if commit else ["--depth=1", *([f"--branch={ref}"] if ref else [])]
    _git(
        ["clone", "--quiet", "--template=", "--no-local", "--no-tags", *depth, "--", address, str(folder)],
        folder.parent,
    )
    if commit:
        _git(["checkout", "--quiet", "--detach", commit[1]], folder)


def commit_of(folder: Path) -> str:
    """Return the commit that *folder* is at."""
    return _git(["rev-parse", "HEAD"], folder).strip()


def file_at(folder: Path, commit: str, name: str) -> str | None:
    """Fetch *commit* and return the text of a file in it; None where the server gives neither."""
    if not FULL_COMMIT.fullmatch(commit):
        return None
    try:
        _git(["fetch", "--quiet", "--depth=1", "--no-tags", "origin", commit], folder)
        return _git(["show", f"{commit}:{name}"], folder)
    except RepositoryError:
        return None


def without_credentials(text: str) -> str:
    """Return *text* without the user and password of an address."""
    return CREDENTIALS.sub("", text)


def _git(arguments: Sequence[str], folder: Path) -> str:
    if shutil.which("git") is None:
        raise RepositoryError("git is not installed")
    command = ["git", *(part for setting in SETTINGS for part in ("-c", setting)), *arguments]
    with subprocess.Popen(
        command,
        cwd=folder,
        env=_environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        # git's own helpers would outlive it.
        start_new_session=True,
    ) as child:
        output, complaint = _communicate(child)
    if child.returncode:
        raise RepositoryError(without_credentials(_reason(complaint)))
    return output


def _communicate(child: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return child.communicate(timeout=GIT_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise RepositoryError(f"git has not answered within {GIT_SECONDS:.0f} s") from error
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)


def _environ() -> dict[str, str]:
    environ = {name: value for name, value in os.environ.items() if name not in LEFT_OUT}
    return {"GIT_SSH_COMMAND": BATCH_SSH} | environ | ENVIRONMENT


def _reason(complaint: str) -> str:
    """Return the line in which git says why, which others may follow."""
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith("fatal:")]
    return next(iter([*fatal, *reversed(lines)]), "git failed and does not say why")

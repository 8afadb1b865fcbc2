"""
The commands, on the standard library alone.

``outdated`` is all here; of ``up`` it is the first half: check, make the gateway's environment, and go on inside it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

from environments import Environments
from installing import InstallError
from options import Options, OutdatedOptions, parse_command
from outdated import UnknownError, tell
from ports import PortTakenError, bind_gateway
from terminal import Terminal

HERE = Path(__file__).resolve().parent
INTERRUPTED = 130
STATE_FOLDER = Path("build", ".local")
"""Everything that ``up`` writes, below the project; faas-cli's ``.gitignore`` already leaves ``build`` out."""


def bootstrap(arguments: Sequence[str]) -> int:
    """Run a command and return its exit status; ``up`` becomes the supervisor, in an interpreter that has its needs."""
    options = parse_command(arguments)
    terminal = Terminal()
    if isinstance(options, OutdatedOptions):
        return _tell_outdated(options, terminal)
    environments = Environments(STATE_FOLDER.absolute() / "environments", terminal.say)
    try:
        _check(options)
        python = options.python or _gateway_python(environments)
    except (FileNotFoundError, PortTakenError, InstallError) as error:
        if environments.stopped:
            return INTERRUPTED
        terminal.complain(str(error))
        return 1
    if environments.stopped:
        return INTERRUPTED
    return os.execv(python, [str(python), str(HERE / "supervisor.py"), *arguments])  # noqa: S606  # no shell is wanted


def _tell_outdated(options: OutdatedOptions, terminal: Terminal) -> int:
    try:
        tell(HERE.parent, options.ref, terminal.say)
    except UnknownError as error:
        terminal.complain(f"what an update would bring cannot be told: {error}")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _check(options: Options) -> None:
    """Say what cannot work before seconds are spent on installing."""
    if not options.stack_file.exists():
        raise FileNotFoundError(
            f"{options.stack_file} is not there: run this in the folder of your stack file, name it with -f,"
            " or make a function with: faas-cli new --lang python-fastapi my-fn"
        )
    bind_gateway(options.port).close()


def _gateway_python(environments: Environments) -> Path:
    def interrupt(number: int, frame: object) -> None:
        environments.stop()

    # Not KeyboardInterrupt, which may come between the making of a process and the moment it is known.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    return environments.for_gateway(HERE / "requirements.txt")

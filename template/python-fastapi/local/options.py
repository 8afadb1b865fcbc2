"""What the command line says."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

STACK_FILES = ("stack.yaml", "stack.yml")
LAST_PORT = 65535
DESCRIPTION = """\
Run the functions of a stack file as processes of this machine, and serve the OpenFaaS gateway's API in front of them.
Containers and a cluster are not needed; a change of code replaces the process without a failed call."""


@dataclass(frozen=True)
class Options:
    """The options of ``up``."""

    stack_file: Path
    port: int
    """Where the gateway listens on 127.0.0.1; 0 lets the system choose."""
    python: Path | None
    """An interpreter to use as it is, for the gateway and the functions; None makes environments."""
    functions: tuple[str, ...]
    """The functions to run; empty for all of the stack file."""


@dataclass(frozen=True)
class OutdatedOptions:
    """The options of ``outdated``."""

    ref: str
    """The branch, tag or ``sha-<commit>`` to compare with; empty for the default branch."""


def parse_command(arguments: Sequence[str]) -> Options | OutdatedOptions:
    """Parse the command line; print the usage and exit where it is wrong, as argparse does."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.command is None:
        parser.print_help()
        parser.exit(2)
    if given.command == "outdated":
        return OutdatedOptions(given.to)
    return Options(given.yaml, given.port, given.python, tuple(given.function))


def parse_options(arguments: Sequence[str]) -> Options:
    """Parse the command line of ``up``, the one command that the supervisor is started with."""
    options = parse_command(arguments)
    if not isinstance(options, Options):
        raise TypeError("only up has a supervisor")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="local", description=DESCRIPTION, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command")
    up = commands.add_parser("up", help="start, until Ctrl-C")
    up.add_argument("-f", "--yaml", type=Path, default=default_stack_file(), help="stack file (%(default)s)")
    up.add_argument("--port", type=_port, default=8080, help="port of the gateway (%(default)s), 0 for any")
    up.add_argument(
        "--python",
        type=_interpreter,
        metavar="PATH",
        help="use this interpreter as it is and install nothing",
    )
    up.add_argument("function", nargs="*", help="functions to run (all)")
    outdated = commands.add_parser("outdated", help="tell what pulling this template again would bring")
    outdated.add_argument("--to", default="", metavar="REF", help="tag, branch or sha-<commit> (the default branch)")
    return parser


def default_stack_file() -> Path:
    """Return the stack file that faas-cli would take: ``stack.yaml`` wins over ``stack.yml``."""
    return next((path for path in map(Path, STACK_FILES) if path.exists()), Path("stack.yaml"))


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:6]) <= LAST_PORT):
        raise argparse.ArgumentTypeError(f"a port is a number from 0 to {LAST_PORT}, not {text!r}")
    return int(text)


def _interpreter(text: str) -> Path:
    found = shutil.which(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text} is not a program that can be run")
    # Not resolved: the link inside a virtual environment is what makes it one.
    return Path(found).absolute()

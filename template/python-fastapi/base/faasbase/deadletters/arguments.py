"""The command line of ``python -m faasbase.deadletters``."""

from __future__ import annotations

import re
import time
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from typing import NoReturn

from ..durations import parse_duration
from .filtering import Filter

_DESCRIPTION = """\
The dead letters of the function whose environment this is.

  list      one line each
  show      everything about the letters of these ids, their messages too
  redrive   send the messages back to where they came from, and then remove the letters
  purge     remove the letters

An id may be cut short, as long as no other id begins so.

Where the process dies between sending and removing, the next redrive sends the message again: its header deadletter-id
is the same.
"""
_ID = "in full, or cut short as long as no other begins so"
_RATE = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(?:/([smh]))?")
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass
class Options:
    """What was asked for."""

    command: str = ""
    url: str = field(default="", repr=False)
    timeout: float = 30.0
    json: bool = False
    content: bool = False
    full: bool = False
    dry_run: bool = False
    yes: bool = False
    to: str = ""
    rate: float = inf
    """Letters a second."""
    limit: int | None = None
    ids: list[str] = field(default_factory=list)
    destination: str = "*"
    error: str = "*"
    function: str = "*"
    since: float = -inf
    until: float = inf
    redrives_below: float = inf

    @property
    def wanted(self) -> Filter:
        """Which letters it is about."""
        return Filter(
            ids=frozenset(self.ids),
            destination=self.destination,
            error=self.error,
            function=self.function,
            since=self.since,
            until=self.until,
            redrives_below=self.redrives_below,
        )


class _Parser(ArgumentParser):
    """Complains in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def parse(arguments: Sequence[str]) -> Options:
    """Return what *arguments* ask for; exit with status 2 where they make no sense."""
    parser = _Parser(prog="faasbase.deadletters", description=_DESCRIPTION, formatter_class=RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="list|show|redrive|purge")
    for name, describe in (("list", _list), ("show", _show), ("redrive", _redrive), ("purge", _purge)):
        command = commands.add_parser(name)
        _everywhere(command)
        describe(command)
    options = parser.parse_args(arguments, namespace=Options())
    if options.command == "purge" and options.wanted == Filter() and not (options.yes or options.dry_run):
        parser.error("purge without a filter removes every letter: say --yes if that is meant")
    return options


def _everywhere(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--url",
        default="",
        help="kafka://host/<group>.dead-letters or nats://host/<durable>-dead-letters; default: the function's own",
    )
    parser.add_argument("--timeout", type=_span, default=30.0, help="without progress, 30s unless given")
    parser.add_argument("--json", action="store_true", help="one line of JSON for each letter")


def _filters(parser: ArgumentParser) -> None:
    parser.add_argument("--id", dest="ids", action="extend", nargs="+", default=[], metavar="ID", help=_ID)
    parser.add_argument("--destination", default="*", help="topic or subject; may hold * and ?, as the next two")
    parser.add_argument("--error", default="*", help="name of the error")
    parser.add_argument("--function", default="*", help="who gave the message up")
    parser.add_argument("--since", type=_moment, default=-inf, metavar="TIME", help="2h (ago) or 2026-01-31T12:00")
    parser.add_argument("--until", type=_moment, default=inf, metavar="TIME")
    parser.add_argument("--redrives-below", type=_count, default=inf, metavar="N", help="put back less than N times")
    parser.add_argument("--limit", type=_count, metavar="N", help="no more than N letters")


def _list(parser: ArgumentParser) -> None:
    _filters(parser)
    parser.add_argument("--content", action="store_true", help="with --json: key, headers and content as well")


def _show(parser: ArgumentParser) -> None:
    parser.add_argument("ids", nargs="+", metavar="ID", help=_ID)
    parser.add_argument("--full", action="store_true", help="all of the content, however long")


def _redrive(parser: ArgumentParser) -> None:
    _changes(parser)
    parser.add_argument("--to", default="", metavar="DESTINATION", help="another topic or subject than their own")


def _purge(parser: ArgumentParser) -> None:
    _changes(parser)
    parser.add_argument("--yes", action="store_true", help="every letter is meant, where no filter is given")


def _changes(parser: ArgumentParser) -> None:
    _filters(parser)
    parser.add_argument("--dry-run", action="store_true", help="tell what would be done, and do nothing")
    parser.add_argument(
        "--rate", type=_rate, default=inf, metavar="N/s", help="no more letters a second, minute or hour"
    )


def _checked(parse: Callable[[str], float], text: str, what: str) -> float:
    try:
        value = parse(text)
    except ValueError:
        raise ArgumentTypeError(f"must be {what}") from None
    if value <= 0:
        raise ArgumentTypeError("must be over 0")
    return value


def _span(text: str) -> float:
    return _checked(parse_duration, text, "a duration such as 30s")


def _count(text: str) -> int:
    return int(_checked(lambda digits: int(digits[:19]), text, "a whole number"))


def _rate(text: str) -> float:
    match = _RATE.fullmatch(text)
    if not match:
        raise ArgumentTypeError("must be a number such as 10/s or 30/m")
    return _checked(float, match[1], "a number") / _UNIT_SECONDS[match[2] or "s"]


def _moment(text: str) -> float:
    """Return seconds since 1970 for a duration that has gone by since, or a time in ISO 8601, UTC unless it says so."""
    try:
        return time.time() - parse_duration(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ArgumentTypeError("must be a duration such as 2h or a time such as 2026-01-31T12:00") from None

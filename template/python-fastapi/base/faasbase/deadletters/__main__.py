"""Run a command on the dead letters of the function whose environment this is."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from ..errors import StartError
from ..settings import load_settings
from .arguments import Options, parse
from .filtering import AmbiguousIdError, whole_ids
from .letters import Letters, PlaceError, letters_of
from .listing import list_letters
from .redriving import change, purging, redriving
from .terminal import Terminal

INTERRUPTED = 130


def main() -> None:
    """Do what the arguments say and exit with its status."""
    options = parse(sys.argv[1:])
    # Libraries log every try to connect: what comes of them is told in one line.
    logging.disable(logging.CRITICAL)
    terminal = Terminal()
    try:
        status = asyncio.run(_run(options, terminal))
    except (StartError, AmbiguousIdError) as exc:
        status = _ended(terminal, str(exc), 2)
    except PlaceError as exc:
        status = _ended(terminal, str(exc), 1)
    except (asyncio.CancelledError, KeyboardInterrupt):
        status = _ended(terminal, "interrupted: letters that are not named as done are where they were", INTERRUPTED)
    except BrokenPipeError:
        # Whoever read has had enough; the interpreter would complain at its own last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    sys.exit(status)


def _ended(terminal: Terminal, reason: str, status: int) -> int:
    terminal.warn(f"faasbase.deadletters: {reason}")
    return status


async def _run(options: Options, terminal: Terminal) -> int:
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    assert task is not None  # noqa: S101 - asyncio.run makes one
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    letters = letters_of(options.url, load_settings(os.environ), options.timeout)
    try:
        await letters.open(writing=options.command in ("redrive", "purge") and not options.dry_run)
        options.ids = await whole_ids(letters, options.ids)
        return await _do(letters, options, terminal)
    finally:
        await letters.close()


async def _do(letters: Letters, options: Options, terminal: Terminal) -> int:
    if options.command == "redrive":
        return await change(letters, redriving(letters, options.to), options, terminal)
    if options.command == "purge":
        return await change(letters, purging(letters), options, terminal)
    return await list_letters(letters, options, terminal)


if __name__ == "__main__":
    main()

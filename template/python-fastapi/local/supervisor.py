"""Second half of ``up``, inside the gateway's environment: read the stack file, run its functions and the gateway."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).resolve().parent
# The rules for durations and the version are the base's: there is one parser, and one number.
sys.path.insert(1, str(HERE.parent / "base"))

from bootstrap import STATE_FOLDER  # noqa: E402
from faasbase.durations import parse_duration  # noqa: E402
from options import Options, parse_options  # noqa: E402
from ports import PortTakenError, bind_gateway  # noqa: E402
from running import Running  # noqa: E402
from selection import SelectionError, select  # noqa: E402
from stackfile import StackFileError, read_stack  # noqa: E402
from terminal import Terminal  # noqa: E402

if TYPE_CHECKING:
    import socket

    from selection import Selection

UPSTREAM_TIMEOUT = "65s"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main() -> int:
    """Run until a signal; return the exit status."""
    options = parse_options(sys.argv[1:])
    terminal = Terminal()
    project = Path.cwd()
    try:
        stack = read_stack(options.stack_file, project, os.environ)
        selection = select(stack, options.functions, project, HERE.parent)
        timeout_seconds = upstream_timeout(os.environ)
        listener = bind_gateway(options.port)
    except (StackFileError, SelectionError, PortTakenError, ValueError) as error:
        terminal.complain(str(error))
        return 1
    for note in selection.notes:
        terminal.say(note)
    return asyncio.run(_run(selection, options, listener, timeout_seconds, terminal))


def upstream_timeout(environ: Mapping[str, str]) -> float:
    """Return the seconds that a call may take: ``upstream_timeout``, as the gateway's own setting is called."""
    text = environ.get("upstream_timeout") or UPSTREAM_TIMEOUT
    try:
        return parse_duration(text)
    except ValueError as error:
        raise ValueError(f"upstream_timeout: {error}") from error


async def _run(
    selection: Selection,
    options: Options,
    listener: socket.socket,
    timeout_seconds: float,
    terminal: Terminal,
) -> int:
    stop, at_once = asyncio.Event(), asyncio.Event()

    def stop_or_hurry() -> None:
        # The second signal does not wait for calls in flight.
        (at_once if stop.is_set() else stop).set()

    for number in STOP_SIGNALS:
        if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
            # nohup's wish.
            continue
        asyncio.get_running_loop().add_signal_handler(number, stop_or_hurry)
    state = Path.cwd() / STATE_FOLDER
    running = Running(selection, options, state, listener, timeout_seconds, terminal)
    return await running.run(stop, at_once)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)

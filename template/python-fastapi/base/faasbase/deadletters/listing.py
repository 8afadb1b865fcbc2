"""List and show."""

from __future__ import annotations

from contextlib import aclosing

from .arguments import Options
from .filtering import Selection
from .letters import Letters, Stored
from .rendering import as_json, as_line, as_page, plain
from .terminal import Terminal


async def list_letters(letters: Letters, options: Options, terminal: Terminal) -> int:
    """
    Print the letters that *options* select, and return the exit status.

    Raises:
        PlaceError: They cannot be read.
    """
    selection = Selection(letters, options.wanted, options.limit)
    shows = options.command == "show"
    async with aclosing(selection.found()) as found:
        async for stored in found:
            terminal.say(_shown(stored, options, shows=shows))
            terminal.progress(selection.seen, letters.total, f"{selection.taken} listed")
    terminal.clear()
    if not options.json and not shows:
        foreign = f", {letters.foreign} foreign messages" if letters.foreign else ""
        terminal.warn(f"{selection.taken} dead letters{foreign}")
    for missing in selection.missing:
        terminal.warn(f"{plain(missing)}: there is no such letter")
    return 1 if selection.missing else 0


def _shown(stored: Stored, options: Options, *, shows: bool) -> str:
    if options.json:
        return as_json(stored, content=options.content or shows)
    return as_page(stored, full=options.full) if shows else as_line(stored)

"""Watch files and folders for changes of code by looking at modification times, which works on every file system."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from staging import NO_CODE, OUTSIDE_A_HANDLER

POLL_SECONDS = 0.5
NOT_WATCHED = (*OUTSIDE_A_HANDLER, "local")
Snapshot = dict[str, tuple[int, int]]


class Watch:
    """Tell which names have a change below their folders, once the change has come to rest."""

    def __init__(self, folders: Mapping[str, Sequence[Path]], changed: Callable[[str], None]) -> None:
        self._folders = folders
        self._changed = changed

    async def run(self) -> None:
        """Look until cancelled."""
        known = previous = await asyncio.to_thread(self._look)
        while True:
            await asyncio.sleep(POLL_SECONDS)
            now = await asyncio.to_thread(self._look)
            # Twice the same: an editor or git has finished writing.
            if now == previous and now != known:
                self._tell(known, now)
                known = now
            previous = now

    def _look(self) -> dict[Path, Snapshot]:
        folders = {folder for several in self._folders.values() for folder in several}
        return {folder: dict(_files(folder, top=True)) for folder in folders}

    def _tell(self, known: Mapping[Path, Snapshot], now: Mapping[Path, Snapshot]) -> None:
        for name, folders in self._folders.items():
            if any(known[folder] != now[folder] for folder in folders):
                self._changed(name)


def _files(folder: Path, *, top: bool) -> Iterator[tuple[str, tuple[int, int]]]:
    try:
        entries = list(os.scandir(folder))
    except NotADirectoryError:
        yield from _file(folder)
        return
    except FileNotFoundError:
        # Removed while it was looked at: the next look sees that.
        return
    for entry in entries:
        if any(fnmatch(entry.name, pattern) for pattern in NO_CODE):
            continue
        # A link to a folder is looked at as a file, since it may lead back up.
        if entry.is_dir(follow_symlinks=False):
            if not (top and entry.name in NOT_WATCHED):
                yield from _files(Path(entry.path), top=False)
        else:
            yield from _file(Path(entry.path))


def _file(path: Path) -> Iterator[tuple[str, tuple[int, int]]]:
    with suppress(FileNotFoundError):
        status = path.stat()
        yield str(path), (status.st_mtime_ns, status.st_size)

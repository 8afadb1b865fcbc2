"""Look host names up in threads of their own: the system's resolver blocks as long as a stranger's server wants."""

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Any, Protocol

from .addresses import Address
from .errors import BusyError, UnreachableError

_THREADS = 8
_MAX_WAITING = 64
_MAX_ADDRESSES = 64


class Resolver(Protocol):
    """Knows the addresses of hosts."""

    async def resolve(self, host: str) -> Sequence[Address]:
        """Return all addresses of *host*; `UnreachableError` where it has none.  A caller may be cancelled any time."""

    def close(self) -> None:
        """Give threads or connections up."""


class SystemResolver:
    """
    Asks the system, as every other program of the container does: ``/etc/hosts``, search domains and all.

    A thread that is stuck stays stuck when its caller leaves, so threads and those who wait for one are bounded, and no
    handler's own threads are among them.
    """

    def __init__(self, look_up: Callable[[str], Sequence[Address]] | None = None) -> None:
        self._look_up = look_up or _look_up
        self._executor = ThreadPoolExecutor(_THREADS, "resolve")
        self._asked = 0

    async def resolve(self, host: str) -> Sequence[Address]:
        if self._asked >= _THREADS + _MAX_WAITING:
            raise BusyError
        loop = asyncio.get_running_loop()
        future = self._executor.submit(self._look_up, host)
        self._asked += 1
        future.add_done_callback(lambda done: _on_loop(loop, self._answered))
        try:
            return await asyncio.wrap_future(future)
        except OSError as exc:
            raise UnreachableError(f"the name is not known ({exc.strerror or type(exc).__name__})") from None
        except UnicodeError:
            raise UnreachableError("the name cannot be looked up") from None

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _answered(self) -> None:
        self._asked -= 1


def _on_loop(loop: asyncio.AbstractEventLoop, call: Any) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:
        # The loop is closed: nobody counts any more.
        return


def _look_up(host: str) -> list[Address]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    addresses = dict.fromkeys(ip_address(str(where[0])) for *_, where in found)
    if len(addresses) > _MAX_ADDRESSES:
        raise OSError(0, "more addresses than anyone has")
    return list(addresses)

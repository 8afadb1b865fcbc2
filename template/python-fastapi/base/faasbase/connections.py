"""
The connections that several parts of the base share; what a failure means is the caller's to decide.

The cache goes on without its server, idempotency does not: here is no retry of commands and no breaker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from hashlib import sha1
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from .connection_errors import ConnectionsError, CredentialsError, RefusedError
from .errors import missing_extra
from .redis_place import Place, place_of
from .tracing import AttributeValue, client_span, tracing_on

if TYPE_CHECKING:
    from .redis_lanes import Lanes

__all__ = ["ConnectionsError", "CredentialsError", "RedisConnections", "RefusedError", "Script", "redis_connections"]


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the name by which a server that has seen it knows it."""

    name: str
    """What it does, for traces."""
    text: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", sha1(self.text.encode(), usedforsecurity=False).hexdigest())


@dataclass(slots=True, eq=False)
class _Shared:
    """One set of connections, and how many use it."""

    lanes: Lanes
    users: int = 0


_SHARED: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Place, _Shared]] = WeakKeyDictionary()


class RedisConnections:
    """
    Asks one Redis server, over connections that all who ask it on the same event loop share.

    Nothing is connected before the first command.  What is asked in one turn of the loop travels together.  *deadline*
    bounds the waiting of the one who asks; what is on its way then may still be done by the server.

    What was lost with its connection is not repeated, unless its caller says that it may be.  Every method raises
    `ConnectionsError` (also `CredentialsError` and `RefusedError`) or TimeoutError.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._shared: _Shared | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._attributes: dict[str, AttributeValue] = {
            "db.system.name": "redis",
            "db.namespace": str(place.database),
            "server.address": place.host,
            "server.port": place.port,
        }

    async def get(self, key: str, deadline_seconds: float) -> bytes | None:
        """Return the string under *key*; None where there is none, or something else than a string."""
        if not tracing_on():
            found: bytes | None = await self._lanes().ask((b"GET", _word(key)), deadline_seconds, repeatable=True)
            return found
        value: bytes | None = await self._ask("GET", ("GET", key), deadline_seconds, repeatable=True)
        return value

    async def execute(self, *command: Any, deadline_seconds: float, repeatable: bool = False) -> Any:
        """
        Return the reply to *command*, its strings as bytes.

        One that may be done twice is *repeatable*: it is sent again where its connection is lost.
        """
        if command[0] == "GET":
            # Lower case is the same to the server and keeps it from travelling as `get` does, which hides other types.
            command = ("get", *command[1:])
        return await self._ask(str(command[0]).upper(), command, deadline_seconds, repeatable=repeatable)

    async def script(
        self,
        script: Script,
        keys: Sequence[str],
        args: Sequence[Any],
        deadline_seconds: float,
        *,
        repeatable: bool = False,
    ) -> Any:
        """
        Return what *script* says for *keys* and *args*; its text is sent only where the server does not know it.

        *repeatable* as for `execute`.
        """
        until = asyncio.get_running_loop().time() + deadline_seconds
        rest = (len(keys), *keys, *args)
        known, whole = ("EVALSHA", script.digest, *rest), ("EVAL", script.text, *rest)
        try:
            return await self._ask("EVALSHA", known, deadline_seconds, script.name, repeatable=repeatable)
        except RefusedError as exc:
            if exc.code != "NOSCRIPT":
                raise
        left = max(0.0, until - asyncio.get_running_loop().time())
        return await self._ask("EVAL", whole, left, script.name, repeatable=repeatable)

    async def close(self) -> None:
        """Let go of the connections; the last who does hangs up.  May be called twice."""
        shared, self._shared = self._shared, None
        if shared is None or self._loop is not asyncio.get_running_loop():
            return
        shared.users -= 1
        if not shared.users:
            _SHARED.get(self._loop, {}).pop(self._place, None)
            await shared.lanes.close()

    async def _ask(
        self,
        operation: str,
        command: Sequence[Any],
        deadline_seconds: float,
        script: str = "",
        *,
        repeatable: bool,
    ) -> Any:
        # Here and not on the way: a word that cannot be sent must not fail those that travel with it.
        words = tuple(map(_word, command))
        if not tracing_on():
            return await self._lanes().ask(words, deadline_seconds, repeatable=repeatable)
        attributes = {**self._attributes, "db.operation.name": operation}
        with client_span(operation, **attributes) as current:
            if script:
                current.set_attribute("db.stored_procedure.name", script)
            try:
                return await self._lanes().ask(words, deadline_seconds, repeatable=repeatable)
            except (ConnectionsError, TimeoutError) as exc:
                current.set_attribute("error.type", type(exc).__name__)
                if isinstance(exc, RefusedError):
                    current.set_attribute("db.response.status_code", exc.code)
                raise

    def _lanes(self) -> Lanes:
        loop = asyncio.get_running_loop()
        if self._shared is None or self._loop is not loop:
            # What belongs to a loop that has ended cannot be used, nor closed, from another one.
            self._shared, self._loop = _acquire(self._place, loop), loop
        return self._shared.lanes


def redis_connections(
    url: str, *, setting: str = "REDIS_URL", also: AbstractSet[str] = frozenset()
) -> RedisConnections:
    """
    Return connections to the server that *url*, the value of *setting*, names; nothing is connected yet.

    ``redis://[user[:password]@]host[:port][/database]``, or ``rediss://`` over TLS, with the options ``username=``,
    ``password_secret=`` and ``ca_secret=``, which name secrets.  Options in *also* are the caller's own.

    Raises:
        SettingError: *url* cannot be used.
        SecretMissingError: A secret that it names is not there.
        MissingExtraError: ``faasbase[redis]`` is not installed.
    """
    place, _ = place_of(setting, url, also)
    place.check()
    try:
        from . import redis_lanes  # noqa: F401 - a missing library stops the start, not the first call
    except ModuleNotFoundError as exc:
        raise missing_extra(exc, "redis", "redis") from exc
    return RedisConnections(place)


def _word(word: Any) -> bytes | int | float:
    if isinstance(word, str):
        # Keys come from callers, who may send half of a surrogate pair.
        return word.encode("utf-8", "surrogatepass")
    if isinstance(word, (bytes, int, float)) and not isinstance(word, bool):
        return word
    raise TypeError(f"a command is made of text, bytes and numbers, not of {type(word).__name__}")


def _acquire(place: Place, loop: asyncio.AbstractEventLoop) -> _Shared:
    from .redis_lanes import Lanes

    places = _SHARED.setdefault(loop, {})
    shared = places.get(place)
    if shared is None:
        shared = places[place] = _Shared(Lanes(place, loop))
    shared.users += 1
    return shared

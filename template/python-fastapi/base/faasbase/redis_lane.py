"""One connection to Redis: made when needed, signed in with today's password, given up when it does not answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.asyncio import Connection, SSLConnection
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from .connection_errors import ConnectionsError, CredentialsError, RefusedError
from .errors import SecretMissingError
from .redis_place import Place

if TYPE_CHECKING:
    from pydantic import SecretStr

Command = Sequence[Any]

CONNECT_SECONDS = 3.0
"""
How long making a connection may take, whatever the deadline of the calls that wait for it.

Were it theirs, a server that is far away could never be reached by calls in a hurry.
"""
_CHECK_SECONDS = 0.5
"""How old what is known of the password's file may be."""


class Identity:
    """Who signs in: the user's name, and the password as it stands in its file now."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._secret = place.secret(place.password_secret)
        self._ca = place.secret(place.ca_secret)

    def certificates(self) -> str | None:
        """Return the PEM text of the certificates that are trusted; None for those of the system."""
        return self._ca.reveal().get_secret_value() if self._ca else None

    def password(self) -> SecretStr | None:
        """Return the secret password; None where there is none, or it stands in the URL."""
        return self._secret.reveal() if self._secret else None

    def credentials(self, password: SecretStr | None) -> dict[str, str | None]:
        """Return what signs in with *password*."""
        text = password.get_secret_value() if password else self._place.password
        return {"username": self._place.username, "password": text}

    def changed(self, used: SecretStr | None) -> bool:
        """Read the file again and tell whether it holds something else than *used*."""
        return self._secret is not None and self._secret.refresh(used)


class Lane:
    """Sends batches of commands over one connection, one batch at a time."""

    def __init__(self, place: Place, identity: Identity, clock: Callable[[], float] = time.monotonic) -> None:
        self._place, self._identity, self._clock = place, identity, clock
        self._connection: Connection | None = None
        self._password: SecretStr | None = None
        self._checked_at = 0.0

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as is known."""
        return self._connection is not None

    async def ready(self) -> None:
        """
        Have a connection that is signed in.

        Raises:
            ConnectionsError: There is none to be had now.
        """
        if self._connection is not None and not await self._ended(self._connection):
            await self._sign_in_anew(self._connection)
        if self._connection is None:
            self._connection = await self._connect()

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """
        Send *commands* at once and return their replies in order, a `RefusedError` where the server says no.

        Cancelling it gives the connection up, since replies would be taken for those of later commands.

        Raises:
            ConnectionsError: The connection was lost; what was done of *commands* is not known.
        """
        await self.ready()
        try:
            try:
                return await self._exchange(commands)
            except _NotSignedInError:
                # The server has forgotten us, or never asked before: nothing was done yet.
                await self.ready()
                return await self._exchange(commands)
        except (RedisError, OSError, EOFError) as exc:
            await self.close()
            raise _told(exc) from None

    async def close(self) -> None:
        """Give the connection up."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await _drop(connection)

    async def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        connection = self._connection
        assert connection is not None  # noqa: S101 - tells the type checker what `ready` has made sure of
        replies: list[Any] = []
        try:
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            for _ in commands:
                replies.append(await _reply(connection))
        except AuthenticationError as exc:
            await self.close()
            raise exc if replies else _NotSignedInError from None
        except BaseException:
            await self.close()
            raise
        return replies

    async def _ended(self, connection: Connection) -> bool:
        """Tell whether the server has hung up since the last batch, and forget the connection if so."""
        try:
            ended = not connection.is_connected or await connection.can_read()
        except (RedisError, OSError):
            ended = True
        if ended:
            await self.close()
        return ended

    async def _sign_in_anew(self, connection: Connection) -> None:
        """Show the server a password that has changed, on a connection that goes on being good either way."""
        now = self._clock()
        if self._password is None or now - self._checked_at < _CHECK_SECONDS:
            return
        self._checked_at = now
        try:
            password = self._identity.password()
        except SecretMissingError:
            return
        if password is None or password == self._password:
            return
        who = self._identity.credentials(password)
        command = ("AUTH", who["username"] or "default", who["password"] or "")
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.send_packed_command(connection.pack_commands([command]), check_health=False)
                await connection.read_response(disconnect_on_error=False)
            self._password = password
        except AuthenticationError:
            # The file is ahead of the server, for which we still are who we were: shown again a little later.
            pass
        except (RedisError, OSError):
            await self.close()

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await self._signed_in()
        except TimeoutError:
            raise ConnectionsError("the server does not answer") from None
        except (RedisError, OSError) as exc:
            raise _told(exc) from None

    async def _signed_in(self) -> Connection:
        try:
            self._password = self._identity.password()
            try:
                return await self._dial()
            except (AuthenticationError, ResponseError):
                if not self._identity.changed(self._password):
                    raise
                self._password = self._identity.password()
                return await self._dial()
        except SecretMissingError as exc:
            raise CredentialsError("the secret with the password cannot be read") from exc

    async def _dial(self) -> Connection:
        connection = self._make()
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            await _drop(connection)
            raise
        self._checked_at = self._clock()
        return connection

    def _make(self) -> Connection:
        place = self._place
        arguments: dict[str, Any] = {
            "host": place.host,
            "port": place.port,
            "db": place.database,
            **self._identity.credentials(self._password),
            # Deadlines are ours; a timeout of the library's for each reply would cost more than the reply.
            "socket_timeout": None,
            "socket_connect_timeout": CONNECT_SECONDS,
            "socket_keepalive": True,
            "driver_info": None,
            "protocol": 2,
        }
        if place.tls:
            return SSLConnection(**arguments, ssl_ca_data=self._identity.certificates())
        return Connection(**arguments)


class _NotSignedInError(CredentialsError):
    """The server wants to know who asks before it does anything."""


async def _reply(connection: Connection) -> Any:
    try:
        return await connection.read_response(disable_decoding=True)
    except AuthenticationError:
        raise
    except ResponseError as exc:
        return RefusedError(_code(exc))


async def _drop(connection: Connection) -> None:
    with suppress(RedisError, OSError):
        await connection.disconnect(nowait=True)


def _told(exc: BaseException) -> ConnectionsError:
    """Return *exc* as ours, without its text: that names addresses, and may repeat keys."""
    if isinstance(exc, AuthenticationError):
        return CredentialsError("the server refuses the name or the password")
    if isinstance(exc, ResponseError):
        return RefusedError(_code(exc))
    return ConnectionsError(f"the connection failed ({type(exc).__name__})")


def _code(exc: ResponseError) -> str:
    """Return the reply's first word if it is a name such as ``OOM``; what follows may repeat keys."""
    words = str(exc.status_code or exc).split(maxsplit=1)
    return words[0] if words and words[0].isascii() and words[0].isalpha() and words[0].isupper() else "ERR"

"""
Events posted to another function, for a site without a broker: ``http(s)://gateway:8080/async-function/<name>``.

An event is sent when the gateway has taken it (202), or on ``/function/<name>`` when its handler has settled it.  What
OpenFaaS does then is its own: CE keeps its queue in memory and tries once.  An event may arrive twice, with the same
id.  ``PUBLISH_SECRET`` signs the body, as Standard Webhooks says; attributes are in it in structured mode only.  A
receiver takes signatures for ``EVENTS_HTTP_TOLERANCE`` (a day): a queue that is slower than that needs another guard.
"""

from __future__ import annotations

from urllib.parse import quote

from ...settings import Settings
from ..dead_letters import DeadLetter
from ..outgoing import Outgoing, PublishError
from .place import HttpPlace, http_place
from .posting import Posting

# What CloudEvents' HTTP binding leaves as it is: all that can be seen in ASCII, but for quotes and its own sign.
_SAFE = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_TOKEN = "!#$&'*+-.^_`|~"  # noqa: S105 - what a header's name may have beside letters and digits


def open_publisher(url: str, settings: Settings) -> GatewayPublisher:
    """Return what sends events to *url*, the value of ``PUBLISH_URL``; nothing is connected yet."""
    place = http_place("PUBLISH_URL", url)
    return GatewayPublisher(place, Posting(place, settings))


def open_dead_letters(url: str, settings: Settings) -> GatewayDeadLetters:
    """Return what posts dead letters to *url*, the value of ``DEADLETTER_URL``."""
    place = http_place("DEADLETTER_URL", url)
    return GatewayDeadLetters(place, Posting(place, settings))


class GatewayPublisher:
    """Sends events to the function at *place*, or to another one of the same gateway."""

    system = "http"

    def __init__(self, place: HttpPlace, posting: Posting) -> None:
        self._place, self._posting = place, posting
        self.destination = place.name

    async def open(self) -> None:
        """Make sure of secrets and certificates; whom events go to need not have started yet, nor the gateway."""
        await self._posting.open()

    async def send(self, message: Outgoing, destination: str) -> None:
        """
        Post *message* to *destination*, a function's name, and return once it is taken.

        Raises:
            PublishError: It is not sure to have been, or *destination* is no name of a function.
        """
        path = self._place.path if destination == self.destination else self._path_of(destination)
        message = message.with_key()
        headers = [
            (name, quote(value, safe=_SAFE) if name.startswith("ce-") else value)
            for name, value in message.all_headers("ce-").items()
        ]
        await self._posting.post(path, message.attributes["id"], headers, message.body())

    async def close(self) -> None:
        """Hang up."""
        await self._posting.close()

    def _path_of(self, function: str) -> str:
        try:
            return self._place.path_of(function)
        except ValueError as exc:
            raise PublishError(str(exc)) from None


class GatewayDeadLetters:
    """Posts dead letters to *place*: the message as it was, with ``deadletter-`` headers beside its own."""

    def __init__(self, place: HttpPlace, posting: Posting) -> None:
        self._place, self._posting = place, posting

    async def open(self) -> None:
        """Make sure of secrets and certificates."""
        await self._posting.open()

    async def send(self, letter: DeadLetter) -> None:
        """
        Post *letter* and return once it is taken.

        Raises:
            PublishError: It is not sure to have been.
        """
        own = [(name, quote(value, safe=_SAFE)) for name, value in letter.own_headers()]
        message = [(quote(name, safe=_TOKEN), _visible(value or b"")) for name, value in letter.headers]
        await self._posting.post(self._place.path, letter.id, [*message, *own], letter.content)

    async def close(self) -> None:
        """Hang up."""
        await self._posting.close()


def _visible(value: bytes) -> str:
    """Return a header's value as it is, but for what no header may have."""
    text = "".join(chr(byte) if 0x20 <= byte < 0x7F else f"%{byte:02X}" for byte in value)
    return text if text == text.strip() else text.replace(" ", "%20")

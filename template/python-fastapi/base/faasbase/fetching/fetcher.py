"""Fetch what a stranger's URL names: each hop is looked up, checked, and reached by the address that was checked."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, contextmanager
from functools import cached_property

from ..context import current_call
from ..tracing import inject
from .addresses import Address, refusal
from .answers import Answer, Count, Fetched, Head, Validators, decoder_of
from .errors import AddressRefusedError, FetchError, RedirectError, TooLargeError, UnreachableError
from .exchange import Deadline, Exchange, connected
from .policy import FetchPolicy
from .resolving import Resolver, SystemResolver
from .telemetry import recorded
from .urls import Target, check_target, read_location, read_url

log = logging.getLogger(__name__)

METHODS = ("GET", "HEAD")
_REDIRECTS = (301, 302, 303, 307, 308)
_BODILESS = (204, 304)
_CARRIED = frozenset(("accept", "accept-language", "user-agent"))
"""Headers of the caller's that another origin may see."""
_OURS = frozenset(("host", "connection", "content-length", "transfer-encoding", "accept-encoding", "expect", "upgrade"))


class Fetcher:
    """
    Fetches within *policy*.

    Cookies, proxies and netrc do not exist here; a connection is used once.  *resolver* and *ssl_context* take the
    places of the system's own.
    """

    def __init__(
        self,
        policy: FetchPolicy | None = None,
        *,
        resolver: Resolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.policy = policy or FetchPolicy()
        self._resolver = resolver or SystemResolver()
        self._given_context = ssl_context

    async def fetch(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        max_bytes: int | None = None,
        timeout_seconds: float | None = None,
        known: Validators | None = None,
    ) -> Fetched:
        """
        Return the answer of *url*, whatever its status, after at most ``max_redirects`` redirects.

        *known* asks whether an earlier answer is still good: 304 says so.  *headers* go to the URL's own origin only,
        but for ``Accept``, ``Accept-Language`` and ``User-Agent``.  *timeout_seconds* and the call's own deadline bound
        all of it, *max_bytes* the body as sent and as unpacked.

        Raises:
            FetchError: There is no such answer; it is a `Problem`, which may go to the caller as it is.
            ValueError: *method* or *headers* cannot be used.
        """
        async with self.stream(
            url, method=method, headers=headers, max_bytes=max_bytes, timeout_seconds=timeout_seconds, known=known
        ) as answer:
            body = b"".join([chunk async for chunk in answer.chunks])
            return Fetched(answer.status, answer.headers, answer.url, body)

    @asynccontextmanager
    async def stream(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        max_bytes: int | None = None,
        timeout_seconds: float | None = None,
        known: Validators | None = None,
    ) -> AsyncIterator[Answer]:
        """Give the answer as soon as its head is there, and its body in ``chunks`` of it; the rest as for `fetch`."""
        wanted = _checked(method, headers or {})
        deadline = Deadline(self._seconds(timeout_seconds))
        limit = self.policy.max_bytes if max_bytes is None else max_bytes
        with _logged():
            target = read_url(url, self.policy.max_url_chars)
            async with AsyncExitStack() as stack:
                head, exchange = await self._followed(stack, method, target, wanted, known, deadline)
                chunks = await stack.enter_async_context(aclosing(_bounded(exchange, head, limit)))
                answer = Answer(head.status, head.headers, head.url, chunks)
                if method == "GET" and head.status not in _BODILESS and (answer.content_length or 0) > limit:
                    raise TooLargeError(limit)
                yield answer

    def close(self) -> None:
        """Let the threads end."""
        self._resolver.close()

    async def _followed(
        self,
        stack: AsyncExitStack,
        method: str,
        target: Target,
        headers: dict[str, str],
        known: Validators | None,
        deadline: Deadline,
    ) -> tuple[Head, Exchange]:
        """Return the answer that no longer leads on; *stack* holds its connection."""
        for hop in range(self.policy.max_redirects + 1):
            async with AsyncExitStack() as here:
                asked = [*headers.items(), *(known.headers if known and known.url == target.url else ())]
                head, exchange = await here.enter_async_context(self._hop(method, target, asked, deadline, hop))
                location = head.headers.get("location")
                if head.status not in _REDIRECTS or location is None:
                    await stack.enter_async_context(here.pop_all())
                    return head, exchange
            following = self._next(target, location)
            if following.origin != target.origin:
                headers = {name: value for name, value in headers.items() if name in _CARRIED}
            target = following
        raise RedirectError(f"more than {self.policy.max_redirects} redirects")

    @asynccontextmanager
    async def _hop(
        self, method: str, target: Target, headers: Sequence[tuple[str, str]], deadline: Deadline, number: int
    ) -> AsyncIterator[tuple[Head, Exchange]]:
        with recorded(method, target, number) as hop, _located(target):
            addresses = await self._addresses(target, deadline)
            context = self._ssl_context if target.scheme == "https" else None
            async with connected(target, addresses, context, self.policy, deadline) as exchange:
                hop.peer = exchange.peer
                head = await exchange.send(method, target, self._sent(target, headers))
                hop.status = head.status
                yield head, exchange

    async def _addresses(self, target: Target, deadline: Deadline) -> Sequence[Address]:
        """Return the addresses of *target*, all of which may be fetched from: one that may not spoils the others."""
        check_target(target, self.policy)
        if target.address is not None:
            found: Sequence[Address] = [target.address]
        else:
            async with deadline.step("looking the name up", self.policy.connect_seconds):
                found = await self._resolver.resolve(target.host)
        if not found:
            raise UnreachableError("the name has no address")
        for address in found:
            if reason := refusal(address, self.policy):
                raise AddressRefusedError(f"{address} is refused ({reason})")
        return found

    def _next(self, target: Target, location: str) -> Target:
        try:
            following = read_location(target, _text(location), self.policy.max_url_chars)
        except FetchError as exc:
            raise RedirectError("a redirect to what is no usable URL") from exc
        if target.scheme == "https" and following.scheme == "http" and not self.policy.allow_downgrade:
            raise RedirectError("a redirect from https to http")
        return following

    def _sent(self, target: Target, headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        traced: dict[str, str] = {}
        if self.policy.propagate_trace:
            inject(traced)
        ours = [("Host", target.authority), ("Accept-Encoding", "gzip"), ("Connection", "close")]
        return [*ours, *headers, *traced.items()]

    def _seconds(self, timeout_seconds: float | None) -> float:
        call = current_call()
        left = call.remaining_seconds() if call else None
        wanted = self.policy.timeout_seconds if timeout_seconds is None else timeout_seconds
        return wanted if left is None else min(wanted, left)

    @cached_property
    def _ssl_context(self) -> ssl.SSLContext:
        # Reading the system's certificates takes 20 ms, which the first one pays who needs them.
        return self._given_context or ssl.create_default_context()


async def _bounded(exchange: Exchange, head: Head, max_bytes: int) -> AsyncGenerator[bytes, None]:
    packed, unpacked = Count(max_bytes), Count(max_bytes)
    decoder = decoder_of(head.headers.get("content-encoding", "").strip().lower())
    while (chunk := await exchange.read()) is not None:
        packed.add(len(chunk))
        for piece in decoder.feed(chunk):
            unpacked.add(len(piece))
            yield piece
            # One chunk may unpack to a thousand pieces, and others want their turn.
            await asyncio.sleep(0)
    decoder.check_end()


def _checked(method: str, headers: Mapping[str, str]) -> dict[str, str]:
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}")
    named = {"accept": "*/*", "user-agent": "faasbase", **{name.lower(): value for name, value in headers.items()}}
    if ours := _OURS & named.keys():
        raise ValueError(f"{', '.join(sorted(ours))}: set by the fetch itself")
    return named


@contextmanager
def _located(target: Target) -> Iterator[None]:
    """Add to the reason of a failure, which only the log shows, where it happened; paths and queries may be secret."""
    try:
        yield
    except FetchError as exc:
        exc.reason = f"{target.scheme}://{target.authority}: {exc.reason}"
        raise


@contextmanager
def _logged() -> Iterator[None]:
    try:
        yield
    except FetchError as exc:
        level = logging.WARNING if isinstance(exc, AddressRefusedError) else logging.INFO
        log.log(level, "fetch failed (%s): %s", exc.kind, exc.reason)
        raise


def _text(location: str) -> str:
    """Return a ``Location`` as it was meant: headers are read as Latin-1, and servers write UTF-8."""
    try:
        return location.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return location

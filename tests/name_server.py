"""A DNS server whose answers may change from one question to the next, and a resolver that asks it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address

import anyio.to_thread
from dnslib import AAAA, QTYPE, RCODE, RR, A, DNSRecord  # type: ignore[import-untyped]
from dnslib.server import BaseResolver, DNSHandler, DNSLogger, DNSServer  # type: ignore[import-untyped]

from faasbase.fetching import UnreachableError

Address = IPv4Address | IPv6Address


@dataclass
class Zone(BaseResolver):  # type: ignore[misc]
    """What each name answers: a list of addresses for each time that it is asked, the last of them for ever."""

    names: dict[str, list[list[str]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def resolve(self, request: DNSRecord, handler: DNSHandler) -> DNSRecord:
        name, kind = str(request.q.qname).rstrip("."), QTYPE[request.q.qtype]
        answers = self.names.get(name, [[]])
        reply = request.reply()
        if not answers[0]:
            reply.header.rcode = RCODE.NXDOMAIN
        for text in answers[0]:
            if (":" in text) == (kind == "AAAA"):
                record = AAAA(text) if kind == "AAAA" else A(text)
                reply.add_answer(RR(name, request.q.qtype, rdata=record, ttl=0))
        if kind == "AAAA":
            # The second question of the two that make one look-up.
            self.asked.append(name)
            if len(answers) > 1:
                answers.pop(0)
        return reply


@dataclass
class DnsResolver:
    """Asks a DNS server on this machine for IPv4 and IPv6 addresses."""

    port: int

    async def resolve(self, host: str) -> Sequence[Address]:
        found = await anyio.to_thread.run_sync(self._ask_both, host, abandon_on_cancel=True)
        if not found:
            raise UnreachableError("the name server knows no such name")
        return found

    def close(self) -> None:
        return

    def _ask_both(self, host: str) -> list[Address]:
        return [*self._ask(host, "A"), *self._ask(host, "AAAA")]

    def _ask(self, host: str, kind: str) -> list[Address]:
        sent = DNSRecord.question(host, kind).send("127.0.0.1", self.port, timeout=2)
        return [ip_address(str(record.rdata)) for record in DNSRecord.parse(sent).rr]


@contextmanager
def name_server(**names: list[list[str]]) -> Iterator[tuple[Zone, DnsResolver]]:
    """Run a server for *names*, whose dots are written as ``__``, and give what it knows and how to ask it."""
    zone = Zone({name.replace("__", "."): answers for name, answers in names.items()})
    server = DNSServer(zone, address="127.0.0.1", port=0, logger=DNSLogger("-request,-reply,-truncated,-error"))
    server.start_thread()
    try:
        yield zone, DnsResolver(server.server.server_address[1])
    finally:
        server.stop()
        server.server.server_close()

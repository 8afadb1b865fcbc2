"""A generator of requests, most of them broken; the same seed makes the same ones."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tests.wire import request_bytes

VALID_SHARE = 5
VERBS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "BREW", "get", "", "G\x00T", "X" * 3000)
PATHS = (
    "/items/7",
    "/items/%",
    "/items/%zz",
    "/items/%00",
    "/items/%ff%fe",
    "/items/" + "9" * 500,
    "/items/7" + "/x" * 500,
    "/../../etc/passwd",
    "/items/..%2f..%2f",
    "//evil.example/",
    "http://evil.example/items/7",
    "*",
    "items",
    "/items/7?" + "a=b&" * 500,
    "/items/7#fragment",
    "/_/objects/../../../etc/passwd",
    "/_/health/../items",
    "/function/hostile/items/7",
    "/items/\u00e9",
)
BODIES = (
    b"",
    b"{",
    b"null",
    b"[]",
    b'{"item": 1}',
    b'{"item": "tea", "amount": 1e999}',
    b'{"item": "tea", "amount": NaN}',
    b'{"item": "\\ud800"}',
    b'{"item": "tea", "amount": ' + b"9" * 5000 + b"}",
    b"[" * 20_000,
    b'{"a":' * 5000,
    b"\xff\xfe\x00",
    b"\x00" * 1000,
    b"item=tea&amount=2",
    b"--b\r\nContent-Disposition: form-data\r\n\r\n",
)
TYPES = (
    "application/json",
    "application/json; charset=utf-99",
    "text/plain",
    "multipart/form-data",
    "multipart/form-data; boundary=" + "b" * 500,
    "application/x-www-form-urlencoded",
    "application/cloudevents+json",
    "application/cloudevents-batch+json",
    "\x7f",
    ";;;",
    "",
)
HEADERS = (
    ("Content-Length", "-1"),
    ("Content-Length", "abc"),
    ("Content-Length", "9" * 30),
    ("Content-Length", "+5"),
    ("Content-Length", "1_0"),
    ("Content-Length", "\u0663"),
    ("Transfer-Encoding", "chunked"),
    ("Transfer-Encoding", "gzip, chunked"),
    ("Transfer-Encoding", "identity"),
    ("Host", ""),
    ("Host", "a b"),
    ("Host", "[::1"),
    ("Host", "x" * 3000),
    ("X-Call-Id", "x" * 5000),
    ("X-Call-Id", "\x00"),
    ("X-Start-Time", "9" * 400),
    ("X-Timeout", "9" * 400 + "h"),
    ("X-Timeout", "-1s"),
    ("X-Forwarded-Host", "evil.example/<script>"),
    ("traceparent", "00-" + "0" * 32 + "-" + "0" * 16 + "-00"),
    ("traceparent", "ff-" + "a" * 5000),
    ("b3", "1"),
    ("X-Callback-Url", "http://x\x7f"),
    ("ce-specversion", "9.9"),
    ("ce-specversion", "1.0"),
    ("ce-id", "%ff%"),
    ("Expect", "200-maybe"),
    ("Upgrade", "websocket"),
    ("Upgrade", "h2c"),
    ("Connection", "Upgrade, close, keep-alive"),
    ("Range", "bytes=-1-,,"),
    ("Accept", "*/*" * 500),
    ("Accept-Encoding", "gzip;q=9"),
    ("Cookie", "=;" * 500),
    ("Authorization", "Bearer"),
    ("X" * 500, "y"),
    ("Bad Name", "x"),
    ("Bad\rName", "x"),
    ("", "empty"),
    ("X-Folded", "a\r\n b"),
    ("X-Latin", "\u00e9\u00ff"),
)
RAW = (
    b"",
    b"\r\n",
    b"\r\n\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: h\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\nHost: h\n\n",
    b"GET  /  HTTP/1.1\r\nHost: h\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST /items/7 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /items/7 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n",
    b"POST /items/7 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    b"POST /items/7 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcdefgh\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcde",
    b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\nshort",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(3000)) + b"\r\n",
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: h\r\nX-Long: " + b"a" * 200_000 + b"\r\n\r\n",
)


@dataclass(frozen=True)
class Attack:
    """One request as bytes; *answer* is what a valid one must be answered with, as status and body."""

    data: bytes
    answer: tuple[int, bytes] | None = None
    method: str = "GET"
    half_closed: bool = True
    """Whether the sender says that no more comes; without it a server waits for the rest of half a request."""


class Corpus:
    """An endless supply of attacks."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._kinds: tuple[Callable[[], Attack], ...] = (
            self._broken_headers,
            self._broken_body,
            self._broken_line,
            self._mutated,
        )

    def attacks(self, count: int) -> Iterator[Attack]:
        """Yield *count* attacks, every fifth of them valid."""
        for number in range(count):
            if number % VALID_SHARE == 0:
                yield replace(self._valid(number), half_closed=False)
            else:
                yield replace(self._random.choice(self._kinds)(), half_closed=self._random.random() < 0.9)

    def _valid(self, number: int) -> Attack:
        if self._random.random() < 0.5:
            return Attack(request_bytes("GET", f"/items/{number}"), (200, b'{"number":%d}' % number))
        body = b'{"item":"tea","amount":%d}' % number
        data = request_bytes("POST", "/orders", {"Content-Type": "application/json"}, body)
        return Attack(data, (200, b'{"total":%d}' % (3 * number)), "POST")

    def _broken_headers(self) -> Attack:
        chosen = self._random.sample(HEADERS, self._random.randint(1, 4))
        method = self._random.choice(("GET", "POST"))
        head = f"{method} /items/7 HTTP/1.1\r\nHost: h\r\n" + "".join(f"{n}: {v}\r\n" for n, v in chosen)
        return Attack((head + "\r\n").encode() + self._random.choice((b"", b"{}", b"5\r\nhello\r\n")), method=method)

    def _broken_body(self) -> Attack:
        headers = {"Content-Type": self._random.choice(TYPES)}
        path = self._random.choice(("/orders", "/", "/items/7"))
        body = self._random.choice(BODIES)
        head = f"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(body)}\r\n"
        return Attack((head + f"Content-Type: {headers['Content-Type']}\r\n\r\n").encode() + body, method="POST")

    def _broken_line(self) -> Attack:
        if self._random.random() < 0.4:
            return Attack(self._random.choice(RAW))
        verb = self._random.choice(VERBS)
        return Attack(f"{verb} {self._random.choice(PATHS)} HTTP/1.1\r\nHost: h\r\n\r\n".encode(), method=verb)

    # A few bytes wrong in an otherwise valid request come closest to what parsers get wrong.
    def _mutated(self) -> Attack:
        data = bytearray(self._valid(self._random.randrange(1000)).data)
        for _ in range(self._random.randint(1, 6)):
            place = self._random.randrange(len(data))
            match self._random.randrange(3):
                case 0:
                    data[place] = self._random.randrange(256)
                case 1:
                    del data[place]
                case _:
                    data[place:place] = self._random.randbytes(self._random.randint(1, 4))
        return Attack(bytes(data))

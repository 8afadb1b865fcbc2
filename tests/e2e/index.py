"""
A package index of the tests' own on this machine, which may ask for a password (PEP 503, RFC 7617).

``with package_index(wheel("acme", "1.0", {"acme.py": "…"}), password="…") as index`` serves it as long as the block
lasts, and `index.asked` tells afterwards what was asked for, with the password and without.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

USER = "builder"
JOIN_SECONDS = 5.0
METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}"
KIND = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@dataclass(frozen=True)
class Wheel:
    """A package as an index holds it."""

    name: str
    file_name: str
    content: bytes = field(repr=False)

    @property
    def locked(self) -> str:
        """Return the line of a requirements file that takes this very file and no other."""
        version = self.file_name.split("-")[1]
        return f"{self.name}=={version} --hash=sha256:{hashlib.sha256(self.content).hexdigest()}"


def wheel(name: str, version: str, modules: Mapping[str, str], *, requires: Sequence[str] = ()) -> Wheel:
    """Pack *modules*, texts by path, as version *version* of *name*."""
    stem = f"{name.replace('-', '_')}-{version}"
    lines = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    metadata = METADATA.format(name=name, version=version, requires=lines)
    files = {**modules, f"{stem}.dist-info/METADATA": metadata, f"{stem}.dist-info/WHEEL": KIND}
    record = f"{stem}.dist-info/RECORD"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path, text in {**files, record: "".join(f"{path},,\n" for path in [*files, record])}.items():
            archive.writestr(path, text)
    return Wheel(name, f"{stem}-py3-none-any.whl", packed.getvalue())


@dataclass(frozen=True)
class Index:
    """What runs: where it is, and what it was asked for."""

    port: int
    password: str = field(repr=False)
    asked: list[tuple[str, bool]] = field(default_factory=list)
    """Paths, each with whether the password came along."""

    @property
    def url(self) -> str:
        """Return the address without a password."""
        return f"http://127.0.0.1:{self.port}/simple/"

    @property
    def url_with_password(self) -> str:
        """Return the address as a configuration of pip holds it."""
        return f"http://{USER}:{self.password}@127.0.0.1:{self.port}/simple/"

    @property
    def netrc(self) -> str:
        """Return the line of a ``.netrc`` that holds the password."""
        return f"machine 127.0.0.1 login {USER} password {self.password}\n"

    def was_asked_for(self, name: str) -> bool:
        """Tell whether anybody asked what there is of *name*, with the password or without."""
        return any(f"{path}/".startswith(f"/simple/{name}/") for path, _ in self.asked)

    def has_told_of(self, name: str) -> bool:
        """Tell whether anybody who knows the password asked what there is of *name*."""
        return (f"/simple/{name}/", True) in self.asked


@contextlib.contextmanager
def package_index(*wheels: Wheel, password: str) -> Iterator[Index]:
    """Serve *wheels* to those who know *password*."""
    pages = _pages(wheels)
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    index = Index(server.server_port, password)
    expected = f"Basic {base64.b64encode(f'{USER}:{password}'.encode()).decode()}"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers["Authorization"] == expected
            index.asked.append((self.path, allowed))
            page = pages.get(self.path)
            self._answer(401 if not allowed else 404 if page is None else 200, page or b"")

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/zip" if self.path.endswith(".whl") else "text/html")
            self.send_header("Content-Length", str(len(body) if status == 200 else 0))
            if status == 401:
                self.send_header("WWW-Authenticate", 'Basic realm="packages"')
            self.end_headers()
            self.wfile.write(body if status == 200 else b"")

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: `Index.asked` tells it."""

    server.RequestHandlerClass = Handler
    thread = threading.Thread(target=server.serve_forever, name="package index", daemon=True)
    thread.start()
    try:
        yield index
    finally:
        server.shutdown()
        server.server_close()
        thread.join(JOIN_SECONDS)


def _pages(wheels: Sequence[Wheel]) -> Mapping[str, bytes]:
    """Return what is served by path: a page of links for each package, and the files."""
    links: dict[str, str] = {}
    for one in wheels:
        links[one.name] = f'{links.get(one.name, "")}<a href="/files/{one.file_name}">{one.file_name}</a>\n'
    pages = {f"/simple/{name}/": text.encode() for name, text in links.items()}
    return pages | {f"/files/{one.file_name}": one.content for one in wheels}

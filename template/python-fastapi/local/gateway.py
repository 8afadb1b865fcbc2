"""The gateway: an ASGI app with the paths, verbs and status codes of OpenFaaS's own."""

from __future__ import annotations

import re
from collections.abc import Mapping

from answers import INTERNAL, Receive, Scope, Send, answer_text
from async_queue import LARGEST_QUEUE_BYTES, AsyncQueue, QueuedCall, QueueError, callback_url
from calls import Call
from deployments import Deployment
from invocation import relay
from system import SystemApi

FUNCTION = re.compile(rb"/(?P<kind>function|async-function)/(?P<name>[-a-zA-Z_0-9.]+)(?P<path>/.*|$)")
DESCRIBE = re.compile(r"/system/function/([-a-zA-Z_0-9.]+)")
WELCOME = """\
OpenFaaS, local. Functions are at /function/<name>, asynchronous calls go to /async-function/<name>.
faas-cli list, describe, invoke and logs work against this address.
"""
NOT_HERE = """\
This is the local gateway: it runs what the stack file says. Edit the stack file or the handler instead;
secrets are files in .secrets/, and deploying needs an OpenFaaS of its own (faas-cli --gateway).
"""


class Gateway:
    """Route a request to a function, its queue, or the system API."""

    def __init__(
        self,
        deployments: Mapping[str, Deployment],
        queue: AsyncQueue,
        system: SystemApi,
        upstream_timeout_seconds: float,
    ) -> None:
        self._deployments = deployments
        self._queue = queue
        self._system = system
        self._upstream_timeout_seconds = upstream_timeout_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        match = FUNCTION.fullmatch(scope["raw_path"])
        if match is None:
            await self._answer_system(scope, receive, send)
            return
        name, _, namespace = match["name"].decode().partition(".")
        deployment = self._deployments.get(name)
        if deployment is None or namespace not in ("", deployment.function.namespace):
            await answer_text(send, 404, self._not_found(match["name"].decode()))
            return
        call = Call.of(scope, match["path"])
        if call.method == "CONNECT":
            # It asks for a tunnel, which no function can be.
            await answer_text(send, 405, "functions take no CONNECT", [(b"allow", b"GET, POST")])
        elif match["kind"] == b"function":
            await relay(deployment, call, receive, send, self._upstream_timeout_seconds)
        elif scope["method"] != "POST":
            await answer_text(send, 405, "asynchronous calls are sent with POST", [(b"allow", b"POST")])
        else:
            await self._enqueue(name, call, receive, send)

    async def _enqueue(self, name: str, call: Call, receive: Receive, send: Send) -> None:
        try:
            url = callback_url(call.headers)
            body = await _whole_body(receive)
            if body is None:
                return
            self._queue.put(name, QueuedCall(_with_length(call, body), body, url))
        except ValueError as error:
            await answer_text(send, 400, str(error))
        except QueueError as error:
            text = f"Error queuing request: {error}"
            await answer_text(send, 500, text, call.stamp.on_answer([INTERNAL]))
        else:
            await answer_text(send, 202, "", call.stamp.on_answer())

    async def _answer_system(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            status = 501 if path.startswith("/system/") else 404
            await answer_text(send, status, NOT_HERE)
        elif described := DESCRIBE.fullmatch(path):
            await self._system.function(scope, send, described[1])
        elif path == "/system/functions":
            await self._system.functions(scope, send)
        elif path == "/system/info":
            await self._system.info(send)
        elif path == "/system/namespaces":
            await self._system.namespaces(send)
        elif path == "/system/logs":
            await self._system.logs(scope, receive, send)
        else:
            await self._answer_plain(path, send)

    async def _answer_plain(self, path: str, send: Send) -> None:
        if path == "/healthz":
            await answer_text(send, 200, "OK")
        elif path == "/":
            await answer_text(send, 200, WELCOME)
        elif path.startswith("/system/"):
            await answer_text(send, 501, NOT_HERE)
        else:
            await answer_text(send, 404, "404 page not found")

    def _not_found(self, name: str) -> str:
        names = ", ".join(sorted(self._deployments)) or "none"
        return f"error finding function {name}: not in the stack file (there: {names})"


async def _whole_body(receive: Receive) -> bytes | None:
    """Return the whole body, or ``None`` when the client goes before its end."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        if len(body) > LARGEST_QUEUE_BYTES:
            raise QueueError(f"the body is larger than {LARGEST_QUEUE_BYTES} bytes")
        if not message.get("more_body", False):
            return bytes(body)


def _with_length(call: Call, body: bytes) -> Call:
    """Return *call* with the length of its body, which is known by now."""
    framing = (b"content-length", b"transfer-encoding")
    headers = [(name, value) for name, value in call.headers if name not in framing]
    length = (b"content-length", str(len(body)).encode())
    return Call(call.method, call.target, [*headers, length], call.stamp)

"""Each form that handler.py may have, and what may stand beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.child import Process
from tests.processes import run_function
from tests.wire import Answer, call

pytestmark = pytest.mark.anyio

HANDLE = """
import threading

from pydantic import BaseModel


class Order(BaseModel):
    item: str
    amount: int = 1


class Receipt(BaseModel):
    total: int
    thread: str


async def handle(order: Order) -> Receipt:
    return Receipt(total=order.amount * 3, thread=threading.current_thread().name)
"""
ROUTER = """
import threading

from fastapi import APIRouter

router = APIRouter()


@router.get("/loop")
async def loop() -> bool:
    return threading.current_thread() is threading.main_thread()


@router.get("/thread")
def thread() -> bool:
    return threading.current_thread() is threading.main_thread()
"""


async def post(function: Process, path: str, body: bytes, kind: str = "application/json") -> Answer:
    """Post *body* and return the answer."""
    return await call(function.port, path, method="POST", headers={"Content-Type": kind}, body=body)


@pytest.fixture(scope="module")
async def greeter() -> AsyncIterator[Process]:
    """Run a handler that takes no body."""
    async with run_function("async def handle(name: str = 'you') -> str:\n    return f'hello {name}'\n") as process:
        await process.ready()
        yield process


class TestHandle:
    """``handle`` with typed parameters."""

    @pytest.fixture(scope="class")
    async def function(self) -> AsyncIterator[Process]:
        """Run the typed handler."""
        async with run_function(HANDLE) as process:
            await process.ready()
            yield process

    async def test_typed_handler_is_served_at_the_root(self, function: Process) -> None:
        """The body is validated into the model, and the answer is the model's JSON."""
        answer = await post(function, "/", b'{"item": "tea", "amount": 2}')
        assert (answer.status, answer.json()["total"]) == (200, 6)
        assert answer.json()["thread"] == "MainThread"

    async def test_typed_handler_is_served_below_the_root(self, function: Process) -> None:
        """Callers of a function may put anything behind its name."""
        assert (await post(function, "/any/path", b'{"item": "tea"}')).status == 200

    async def test_document_describes_models_and_errors(self, function: Process) -> None:
        """The OpenAPI document has the handler's models, and problem details as its error."""
        document = (await call(function.port, "/openapi.json")).json()
        operation = document["paths"]["/"]["post"]
        assert set(document["components"]["schemas"]) >= {"Order", "Receipt"}
        assert "application/problem+json" in operation["responses"]["422"]["content"]


@pytest.mark.parametrize("path", ["/", "/below/it"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"])
async def test_handler_without_a_body_takes_every_verb(greeter: Process, method: str, path: str) -> None:
    """Callers of a function choose the verb."""
    answer = await call(greeter.port, f"{path}?name=Ada", method=method)
    assert answer.status == 200
    assert answer.text == ("" if method == "HEAD" else '"hello Ada"')


async def test_options_tells_the_verbs(greeter: Process) -> None:
    """204 and ``Allow``."""
    answer = await call(greeter.port, "/", method="OPTIONS")
    assert answer.status == 204
    assert {"GET", "POST"} <= set((answer.header("allow") or "").split(", "))


async def test_router_has_several_routes() -> None:
    """A ``def`` among them runs in a thread, where it may block."""
    async with run_function(ROUTER) as function:
        assert (await call(function.port, "/loop")).json() is True
        assert (await call(function.port, "/thread")).json() is False
        assert (await call(function.port, "/nowhere")).status == 404


async def test_app_is_served_as_it_is() -> None:
    """Any ASGI app, with the prefix in its scope and none of our error shapes inside."""
    handler = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = f"{scope['root_path']} {scope['path']}".encode()
    await send({"type": "http.response.start", "status": 404, "headers": [(b"x-app", b"bare")]})
    await send({"type": "http.response.body", "body": body})
"""
    async with run_function(handler, OPENFAAS_NAME="bare") as function:
        answer = await call(function.port, "/some/where")
        assert (answer.status, answer.text) == (404, "/function/bare /function/bare/some/where")
        assert answer.header("x-app") == "bare"
        assert answer.header("x-duration-seconds")


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_bytes_are_sent_as_they_are(kind: str) -> None:
    """``-> bytes`` is a body and not JSON."""
    async with run_function(f"{kind} handle() -> bytes:\n    return bytes(range(256))\n") as function:
        answer = await call(function.port, "/")
        assert (answer.status, answer.body) == (200, bytes(range(256)))
        assert answer.header("content-type") == "application/octet-stream"


async def test_function_of_events_only_needs_no_surface() -> None:
    """``@on_event`` alone is a function; calls that are no events are refused."""
    handler = """
from faasbase import Event, on_event


@on_event("ping")
async def pong(event: Event[dict]) -> None:
    print("pong", event.data)
"""
    async with run_function(handler) as function:
        event = b'{"specversion":"1.0","id":"1","source":"/t","type":"ping","data":{"n":1}}'
        assert (await post(function, "/", event, "application/cloudevents+json")).status == 204
        assert (await call(function.port, "/")).status in {404, 405}
        await function.log_line("pong {'n': 1}")


async def test_lifespan_runs_around_the_calls() -> None:
    """What it opens is there for the first call."""
    handler = """
from contextlib import asynccontextmanager

from fastapi import APIRouter, Request

router = APIRouter()


@asynccontextmanager
async def lifespan(app):
    app.state.greeting = "hello"
    yield


@router.get("/")
async def greet(request: Request) -> str:
    return request.app.state.greeting
"""
    async with run_function(handler) as function:
        assert (await call(function.port, "/")).json() == "hello"


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_ready_decides_readiness_and_not_health(tmp_path: Path, kind: str) -> None:
    """``ready()`` false is 503 at ``/_/ready``; the pod stays alive."""
    flag = tmp_path / "ready"
    handler = f"""
from pathlib import Path


async def handle() -> str:
    return "here"


{kind} ready() -> bool:
    return Path({str(flag)!r}).exists()
"""
    async with run_function(handler) as function:
        assert (await call(function.port, "/")).status == 200
        assert (await call(function.port, "/_/ready")).status == 503
        assert (await call(function.port, "/_/health")).status == 200
        flag.touch()
        assert (await call(function.port, "/_/ready")).status == 200


async def test_ready_that_fails_is_not_ready() -> None:
    """An exception in ``ready()`` is logged and answered 503."""
    handler = "async def handle() -> str:\n    return ''\n\ndef ready() -> bool:\n    return 1 / 0 > 0\n"
    async with run_function(handler) as function:
        assert (await call(function.port, "/")).status == 200
        assert (await call(function.port, "/_/ready")).status == 503
        assert "ZeroDivisionError" in await function.log_line("ready() failed")


TYPED = """
from pydantic import BaseModel


class Greeting(BaseModel):
    name: str


async def handle(greeting: Greeting) -> str:
    return greeting.name
"""


@pytest.mark.parametrize("content_type", [None, "text/plain", "text/plain; charset=utf-8", "application/json"])
async def test_typed_handle_takes_json_as_openfaas_sends_it(content_type: str | None) -> None:
    """`faas-cli invoke` and the connectors send text/plain unless they are told otherwise."""
    headers = {"Content-Type": content_type} if content_type else {}
    async with run_function(TYPED) as function:
        answer = await call(function.port, method="POST", headers=headers, body=b'{"name": "Ada"}')
        assert (answer.status, answer.json()) == (200, "Ada")


async def test_body_of_another_type_is_told_which_one_is_needed() -> None:
    """What curl sends with -d is a form."""
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    async with run_function(TYPED) as function:
        answer = await call(function.port, method="POST", headers=headers, body=b'{"name": "Ada"}')
        assert (answer.status, answer.json()["detail"]) == (
            422,
            "the request is not valid; a JSON body needs Content-Type: application/json",
        )
        broken = await call(function.port, method="POST", headers={"Content-Type": "application/json"}, body=b'{"n')
        (error,) = broken.json()["errors"]
        assert error["field"] == "body"
        assert "is no JSON" in error["message"]


async def test_redirect_leads_to_no_other_host() -> None:
    """A path that begins with two slashes would, in a relative redirect, name a host."""
    source = """
from fastapi import APIRouter

router = APIRouter()


@router.get("/{anything:path}/")
async def slashed(anything: str) -> str:
    return anything
"""
    async with run_function(source, ROOT_PATH="/") as function:
        answer = await call(function.port, "//evil.example/x")
        assert (answer.status, answer.header("location")) == (307, "/evil.example/x/")

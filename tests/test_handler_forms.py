"""Each form that handler.py may have, what stands beside it, and the errors of those that cannot serve."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

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
from pathlib import Path

from fastapi import APIRouter, FastAPI, HTTPException, Request, WebSocket
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles
from faasbase import FieldError, Problem

router = APIRouter()
other = FastAPI()
(Path(__file__).parent / "pages").mkdir(exist_ok=True)
(Path(__file__).parent / "pages" / "index.txt").write_text("a page")
router.mount("/static", StaticFiles(directory=Path(__file__).parent / "pages"))
router.mount("/other", other)


@other.get("/inner")
async def inner(request: Request) -> str:
    return str(request.url_for("inner"))


@router.get("/threads")
def threads() -> bool:
    return threading.current_thread() is threading.main_thread()


@router.get("/items/{number}")
async def item(number: int) -> dict[str, int]:
    return {"number": number}


@router.get("/named", name="named")
async def named(request: Request) -> dict[str, str]:
    return {"url": str(request.url_for("named"))}


@router.get("/slash/")
async def slash() -> str:
    return "slash"


@router.get("/away")
async def away(request: Request) -> RedirectResponse:
    return RedirectResponse(request.url_for("named"))


@router.get("/teapot")
async def teapot() -> None:
    raise HTTPException(418, "short and stout", headers={"X-Kind": "teapot"})


@router.get("/problem")
async def problem() -> None:
    raise Problem(
        409, "taken", title="Taken", errors=[FieldError("name", "is taken")], retry_after_seconds=1.2
    )


@router.get("/broken")
async def broken() -> None:
    raise RuntimeError("the secret of the broken route")
"""


async def post(function: Process, path: str, body: bytes, kind: str = "application/json") -> Answer:
    """Post *body* and return the answer."""
    return await call(function.port, path, method="POST", headers={"Content-Type": kind}, body=body)


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

    async def test_invalid_body_names_its_field(self, function: Process) -> None:
        """422 as problem details, without the value that was sent."""
        answer = await post(function, "/", b'{"item": "tea", "amount": "much-secret"}')
        problem = assert_problem(answer, 422)
        assert [error["field"] for error in problem["errors"]] == ["body.amount"]
        assert "much-secret" not in answer.text

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"null"])
    async def test_body_that_is_no_order_is_refused(self, function: Process, body: bytes) -> None:
        """Whatever the bytes are, the caller is told, and nothing breaks."""
        assert_problem(await post(function, "/", body), 422)

    async def test_document_describes_models_and_errors(self, function: Process) -> None:
        """The OpenAPI document has the handler's models, and problem details as its error."""
        document = (await call(function.port, "/openapi.json")).json()
        operation = document["paths"]["/"]["post"]
        assert set(document["components"]["schemas"]) >= {"Order", "Receipt"}
        assert "application/problem+json" in operation["responses"]["422"]["content"]


class TestRouter:
    """``router`` with several routes, behind the gateway's prefix."""

    @pytest.fixture(scope="class")
    async def function(self) -> AsyncIterator[Process]:
        """Run the router."""
        async with run_function(ROUTER, OPENFAAS_NAME="shop") as process:
            await process.ready()
            yield process

    async def test_plain_function_runs_in_a_thread(self, function: Process) -> None:
        """A ``def`` may block without stopping the others."""
        assert (await call(function.port, "/threads")).json() is False

    async def test_static_files_are_served(self, function: Process) -> None:
        """A mount works though the gateway has taken the prefix away."""
        assert (await call(function.port, "/static/index.txt")).text == "a page"

    async def test_mounted_app_knows_where_it_is(self, function: Process) -> None:
        """URLs made inside a mounted app lead through the gateway."""
        answer = await call(function.port, "/other/inner", headers={"Host": "gateway:8080"})
        assert answer.json() == "http://gateway:8080/function/shop/other/inner"

    async def test_links_lead_through_the_gateway(self, function: Process) -> None:
        """``url_for`` knows the prefix."""
        answer = await call(function.port, "/named", headers={"Host": "gateway:8080"})
        assert answer.json() == {"url": "http://gateway:8080/function/shop/named"}

    @pytest.mark.parametrize(("path", "target"), [("/away", "/named"), ("/slash", "/slash/")])
    async def test_redirects_lead_through_the_gateway(self, function: Process, path: str, target: str) -> None:
        """Redirects of the handler and of the router itself stay behind the prefix."""
        answer = await call(function.port, path, headers={"Host": "gateway:8080"})
        location = answer.header("location") or ""
        assert answer.status == 307
        assert location.removeprefix("http://gateway:8080") == f"/function/shop{target}"

    async def test_docs_find_their_document(self, function: Process) -> None:
        """The page at ``/docs`` asks for the document behind the prefix, and the document names it as the server."""
        page = (await call(function.port, "/docs")).text
        document = (await call(function.port, "/openapi.json")).json()
        assert "/function/shop/openapi.json" in page
        assert document["servers"] == [{"url": "/function/shop"}]

    async def test_docs_can_be_switched_off(self) -> None:
        """``DOCS_ENABLED=false`` takes page and document away."""
        async with run_function(ROUTER, DOCS_ENABLED="false") as function:
            paths = ("/docs", "/redoc", "/openapi.json")
            assert [(await call(function.port, path)).status for path in paths] == [404] * 3

    async def test_problem_is_answered_as_it_was_raised(self, function: Process) -> None:
        """Status, title, fields and the time after which to come again."""
        answer = await call(function.port, "/problem", headers={"X-Call-Id": "call-7"})
        problem = assert_problem(answer, 409)
        assert problem["title"] == "Taken"
        assert problem["detail"] == "taken"
        assert problem["errors"] == [{"field": "name", "message": "is taken"}]
        assert problem["call_id"] == "call-7"
        assert answer.header("retry-after") == "2"

    async def test_http_exception_is_a_problem_too(self, function: Process) -> None:
        """FastAPI's own exception keeps its status, detail and headers."""
        answer = await call(function.port, "/teapot")
        assert assert_problem(answer, 418)["detail"] == "short and stout"
        assert answer.header("x-kind") == "teapot"

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [("GET", "/nowhere", 404), ("DELETE", "/threads", 405), ("GET", "/items/seven", 422)],
    )
    async def test_refusals_of_the_router_are_problems(
        self, function: Process, method: str, path: str, status: int
    ) -> None:
        """Unknown path, wrong verb, bad parameter."""
        assert_problem(await call(function.port, path, method=method), status)

    async def test_crash_tells_the_caller_an_id_and_no_more(self, function: Process) -> None:
        """The caller's answer has neither trace nor message; the log has both, under the same id."""
        answer = await call(function.port, "/broken", headers={"X-Call-Id": "call-8"})
        problem = assert_problem(answer, 500)
        assert problem["call_id"] == "call-8"
        assert "secret" not in answer.text
        failed = json.loads(await function.log_line("RuntimeError: the secret of the broken route"))
        assert failed["call_id"] == "call-8"
        assert "function/handler.py" in failed["exception"]


def assert_problem(answer: Answer, status: int) -> dict[str, Any]:
    """Return the problem details of *answer* after checking that they are complete."""
    assert answer.status == status, answer
    assert answer.header("content-type") == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert problem["call_id"] == answer.header("x-call-id")
    assert "Traceback" not in answer.text
    return problem


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


async def test_root_path_can_be_set() -> None:
    """``ROOT_PATH`` is for a site whose gateway has another prefix."""
    async with run_function(ROUTER, ROOT_PATH="/api/v1/shop") as function:
        answer = await call(function.port, "/named", headers={"Host": "site"})
        assert answer.json() == {"url": "http://site/api/v1/shop/named"}


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


BROKEN = {
    "nothing to call": ("x = 1\n", ["function/handler.py", "handle", "router", "app"]),
    "two surfaces": (
        "from fastapi import APIRouter\nrouter = APIRouter()\nasync def handle() -> None: ...\n",
        ["function/handler.py", "handle and router"],
    ),
    "untyped parameters": ("def handle(req):\n    return req\n", ["function/handler.py", "req", "type"]),
    "router of another kind": ("router = object()\n", ["function/handler.py", "APIRouter"]),
    "handle that cannot be called": ("handle = 3\n", ["function/handler.py", "handle"]),
    "syntax error": ("async def handle( -> None: ...\n", ["function/handler.py:1", "SyntaxError"]),
    "missing library": ("import nowhere_to_be_found\n", ["function/handler.py:1", "requirements.txt"]),
    "missing module of its own": ("from .prices import quote\n", ["function/prices.py"]),
    "failure at import": ("x = 1\ny = {}['k']\n", ["function/handler.py:2", "KeyError"]),
    "exit at import": ("import sys\nsys.exit(0)\n", ["function/handler.py:2", "SystemExit"]),
    "lifespan that fails": (
        "from contextlib import asynccontextmanager\n"
        "@asynccontextmanager\nasync def lifespan(app):\n    raise OSError('no database')\n    yield\n"
        "async def handle() -> None: ...\n",
        ["no database"],
    ),
    "two handlers of one event": (
        "from faasbase import Event, on_event\n"
        "@on_event('a')\nasync def one(event: Event[dict]) -> None: ...\n"
        "@on_event('a')\nasync def two(event: Event[dict]) -> None: ...\n",
        ["one", "two", "a"],
    ),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_handler_that_cannot_serve_stops_the_start(name: str) -> None:
    """One critical JSON line says where and what; the exit status is 1."""
    source, words = BROKEN[name]
    async with run_function(source).unwaited() as function:
        assert await function.exited() == 1
        critical = [line for line in function.logs() if line["level"] == "critical"]
        assert len(critical) == 1, function.output()
        assert critical[0]["message"].startswith("start failed: ")
        assert all(word in critical[0]["message"] for word in words), critical[0]["message"]
        assert not function.lock_file.exists()

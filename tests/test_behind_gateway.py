"""Behind ``/function/<name>``, which the gateway takes away, links, mounts, redirects and ``/docs`` work."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.child import Process
from tests.processes import run_function
from tests.wire import call

pytestmark = pytest.mark.anyio

HANDLER = """
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles

router = APIRouter()
other = FastAPI()
(Path(__file__).parent / "pages").mkdir(exist_ok=True)
(Path(__file__).parent / "pages" / "index.txt").write_text("a page")
router.mount("/static", StaticFiles(directory=Path(__file__).parent / "pages"))
router.mount("/other", other)


@other.get("/inner")
async def inner(request: Request) -> str:
    return str(request.url_for("inner"))


@router.get("/named", name="named")
async def named(request: Request) -> dict[str, str]:
    return {"url": str(request.url_for("named"))}


@router.get("/slash/")
async def slash() -> str:
    return "slash"


@router.get("/away")
async def away(request: Request) -> RedirectResponse:
    return RedirectResponse(request.url_for("named"))
"""


@pytest.fixture(scope="module")
async def function() -> AsyncIterator[Process]:
    """Run the handler."""
    async with run_function(HANDLER, OPENFAAS_NAME="shop") as process:
        await process.ready()
        yield process


async def test_static_files_are_served(function: Process) -> None:
    """A mount works though the gateway has taken the prefix away."""
    assert (await call(function.port, "/static/index.txt")).text == "a page"


async def test_mounted_app_knows_where_it_is(function: Process) -> None:
    """URLs made inside a mounted app lead through the gateway."""
    answer = await call(function.port, "/other/inner", headers={"Host": "gateway:8080"})
    assert answer.json() == "http://gateway:8080/function/shop/other/inner"


async def test_links_lead_through_the_gateway(function: Process) -> None:
    """``url_for`` knows the prefix."""
    answer = await call(function.port, "/named", headers={"Host": "gateway:8080"})
    assert answer.json() == {"url": "http://gateway:8080/function/shop/named"}


@pytest.mark.parametrize(("path", "target"), [("/away", "/named"), ("/slash", "/slash/")])
async def test_redirects_lead_through_the_gateway(function: Process, path: str, target: str) -> None:
    """Redirects of the handler and of the router itself stay behind the prefix."""
    answer = await call(function.port, path, headers={"Host": "gateway:8080"})
    location = answer.header("location") or ""
    assert answer.status == 307
    assert location.removeprefix("http://gateway:8080") == f"/function/shop{target}"


async def test_docs_find_their_document(function: Process) -> None:
    """The page at ``/docs`` asks for the document behind the prefix, and the document names it as the server."""
    page = (await call(function.port, "/docs")).text
    document = (await call(function.port, "/openapi.json")).json()
    assert "/function/shop/openapi.json" in page
    assert document["servers"] == [{"url": "/function/shop"}]


async def test_docs_can_be_switched_off() -> None:
    """``DOCS_ENABLED=false`` takes page and document away."""
    async with run_function(HANDLER, DOCS_ENABLED="false") as function:
        paths = ("/docs", "/redoc", "/openapi.json")
        assert [(await call(function.port, path)).status for path in paths] == [404] * 3


async def test_root_path_can_be_set() -> None:
    """``ROOT_PATH`` is for a site whose gateway has another prefix."""
    async with run_function(HANDLER, ROOT_PATH="/api/v1/shop") as function:
        answer = await call(function.port, "/named", headers={"Host": "site"})
        assert answer.json() == {"url": "http://site/api/v1/shop/named"}


async def test_links_name_the_host_that_the_caller_knows(function: Process) -> None:
    """The gateway calls the pod by its own address and hands the caller's on in X-Forwarded-Host."""
    headers = {"Host": "10.0.0.7:8080", "X-Forwarded-Host": "shop.example:8443", "X-Forwarded-Proto": "https"}
    named = await call(function.port, "/named", headers=headers)
    assert named.json() == {"url": "https://shop.example:8443/function/shop/named"}
    away = await call(function.port, "/away", headers=headers)
    assert away.header("location") == "/function/shop/named"


async def test_forwarded_host_that_is_none_is_not_believed(function: Process) -> None:
    """It is the caller's to write."""
    headers = {"Host": "shop.example", "X-Forwarded-Host": "evil.example/?x="}
    named = await call(function.port, "/named", headers=headers)
    assert "evil" not in named.text

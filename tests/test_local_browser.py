"""What a browser asks of a function behind the gateway of the embedded OpenFaaS: pages, mounts, redirects."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urljoin, urlsplit

import pytest

from tests.local_up import Up, make_project, up
from tests.wire import Answer, call

pytestmark = pytest.mark.anyio

HANDLER = """
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles

router = APIRouter()
other = FastAPI()
router.mount("/static", StaticFiles(directory=Path(__file__).parent / "pages", html=True))
router.mount("/other", other)

@other.get("/inner")
async def inner(request: Request) -> str:
    return str(request.url_for("inner"))

@router.get("/there", name="there")
async def there() -> str:
    return "there"

@router.get("/away")
async def away(request: Request) -> RedirectResponse:
    return RedirectResponse(request.url_for("there"))

@router.get("/slash/")
async def slash() -> str:
    return "slash"
"""
MOST_REDIRECTS = 3


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    project = make_project(tmp_path_factory.mktemp("browser"), {"shop": HANDLER})
    (project / "shop" / "pages" / "more").mkdir(parents=True)
    (project / "shop" / "pages" / "style.css").write_text("body {}")
    (project / "shop" / "pages" / "more" / "index.html").write_text("more pages")
    with up(project) as running:
        yield running


async def visit(local: Up, target: str) -> Answer:
    """Open *target*, relative to the function's address, and go where it sends."""
    url = urljoin(f"{local.url}/function/shop/", target)
    for _ in range(MOST_REDIRECTS):
        assert url.startswith(f"{local.url}/function/shop/"), url
        parts = urlsplit(url)
        answer = await call(local.port, f"{parts.path}?{parts.query}", headers={"Host": parts.netloc})
        if answer.status not in (301, 302, 303, 307, 308):
            return answer
        url = urljoin(url, answer.header("Location"))
    raise AssertionError(f"redirected for ever: {url}")


async def test_docs_page_finds_its_document_and_the_document_its_functions(local: Up) -> None:
    page = await visit(local, "docs")
    assert page.status == 200
    found = re.search(r"url: '([^']+)'", page.text)
    assert found is not None
    document = (await visit(local, found[1])).json()
    server = document["servers"][0]["url"]
    assert (await visit(local, f"{server}/there")).json() == "there"


@pytest.mark.parametrize(
    ("path", "text"),
    [("static/style.css", "body {}"), ("static/more/index.html", "more pages"), ("static/more", "more")],
)
async def test_static_files_are_served(local: Up, path: str, text: str) -> None:
    answer = await visit(local, path)
    assert answer.status == 200
    assert text in answer.text


async def test_mounted_app_is_reached_and_knows_its_path(local: Up) -> None:
    path = urlsplit((await visit(local, "other/inner")).json()).path
    assert path == "/function/shop/other/inner"
    assert (await visit(local, path)).status == 200


@pytest.mark.parametrize(("path", "text"), [("away", "there"), ("slash", "slash")])
async def test_redirects_lead_to_the_function(local: Up, path: str, text: str) -> None:
    answer = await visit(local, path)
    assert (answer.status, answer.json()) == (200, text)

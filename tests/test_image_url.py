"""The image-processor given a URL: fetched safely, kept as long as its server says, refused with the right status."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from tests.hostile_http import Asked, Behaviour, HostileServer, answer, endless, hostile_server, redirect, silent
from tests.otlp_sink import otlp_sink
from tests.pictures import encoded, opened, photo
from tests.processes import run_function
from tests.staging import FUNCTIONS
from tests.wire import call

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
PHOTO = encoded(photo(), "JPEG")
OPENED = {"FETCH_ALLOW_RANGES": "127.0.0.1", "FETCH_PORTS": "1-65535", "FETCH_TIMEOUT": "2s", "LOG_LEVEL": "INFO"}


@dataclass
class Sites:
    """A function, and a server on the internet as far as it can tell."""

    http: httpx2.AsyncClient
    server: HostileServer

    async def post(self, path: str, *operations: str, **fields: Any) -> httpx2.Response:
        url = path if ":" in path else f"{self.server.url}{path}"
        return await self.http.post("/", json={"image_url": url, "operations": operations, **fields})

    async def answer(self, path: str, *operations: str, **fields: Any) -> dict[str, Any]:
        response = await self.post(path, *operations, **fields)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    async def asked(self, path: str) -> list[Asked]:
        return [asked for asked in self.server.asked if asked.path == path]


@pytest.fixture(scope="module")
async def sites() -> AsyncIterator[Sites]:
    async with (
        hostile_server() as server,
        run_function(FUNCTIONS / "image-processor", IMAGE_URL_TTL="1s", **OPENED) as process,
        httpx2.AsyncClient(base_url=process.url, timeout=30, trust_env=False) as http,
    ):
        yield Sites(http, server)


def versioned(body: bytes, **headers: str) -> Behaviour:
    """Answer with *body* and its ETag, or 304 to those who know it."""
    etag = f'"{hash(body)}"'

    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> None:
        same = asked.headers.get("if-none-match") == etag
        await (answer(b"", 304, etag=etag) if same else answer(body, etag=etag, **headers))(asked, writer)

    return behave


async def test_image_is_fetched_and_processed(sites: Sites) -> None:
    sites.server.paths["/photo.jpg"] = redirect("/moved.jpg")
    sites.server.paths["/moved.jpg"] = answer(PHOTO)
    found = await sites.answer("/photo.jpg", "resize:80x60", "grayscale", format="webp", quality=70)
    assert (found["width"], found["height"], found["format"]) == (80, 60, "webp")
    assert (found["operations_count"], found["cached"]) == (2, False)
    assert opened((await sites.http.get(found["processed_url"])).content).size == (80, 60)
    (asked,) = await sites.asked("/moved.jpg")
    assert (asked.method, asked.headers["accept"]) == ("GET", "image/*")


async def test_same_image_is_the_same_result_however_it_comes(sites: Sites) -> None:
    body = encoded(photo(), "PNG")
    sites.server.paths["/twin"] = answer(body)
    first = await sites.answer("/twin", "thumbnail:20")
    posted = await sites.http.post("/?op=thumbnail:20", content=body)
    assert (first["cached"], posted.json()["cached"]) == (False, True)


async def test_document_is_known_without_its_type(sites: Sites) -> None:
    """As `curl -d` sends it."""
    sites.server.paths["/typed"] = answer(PHOTO)
    body = f' {{"image_url": "{sites.server.url}/typed", "operations": ["rotate:90"]}}'
    form = {"content-type": "application/x-www-form-urlencoded"}
    response = await sites.http.post("/", content=body.encode(), headers=form)
    assert (response.status_code, response.json()["operations_count"]) == (200, 1)


async def test_kept_image_is_used_for_other_operations_without_asking(sites: Sites) -> None:
    sites.server.paths["/kept"] = versioned(PHOTO, cache_control="max-age=600")
    sizes = [(await sites.answer("/kept", f"resize:{width}x"))["width"] for width in (30, 31, 32)]
    assert sizes == [30, 31, 32]
    assert len(await sites.asked("/kept")) == 1


@pytest.mark.parametrize("rule", ["", "no-cache", "max-age=0", "max-age=600"])
async def test_kept_image_is_asked_for_again_after_its_time(sites: Sites, rule: str) -> None:
    """The shorter one of the server's and the function's: 600 s do not make it longer than IMAGE_URL_TTL."""
    path = f"/again-{rule}"
    headers = {"cache_control": rule} if rule else {}
    sites.server.paths[path] = versioned(encoded(photo(), "PNG"), **headers)
    await sites.answer(path, "resize:40x")
    await asyncio.sleep(1.1)
    assert (await sites.answer(path, "resize:41x"))["width"] == 41
    first, second = await sites.asked(path)
    assert "if-none-match" not in first.headers
    assert "if-none-match" in second.headers


async def test_last_modified_is_a_validator_as_well(sites: Sites) -> None:
    date = "Wed, 21 Oct 2015 07:28:00 GMT"
    sites.server.paths["/dated"] = answer(PHOTO, last_modified=date, cache_control="no-cache")
    await sites.answer("/dated", "resize:50x")
    sites.server.paths["/dated"] = answer(b"", 304)
    assert (await sites.answer("/dated", "resize:51x"))["width"] == 51
    assert (await sites.asked("/dated"))[1].headers["if-modified-since"] == date.lower()


async def test_changed_image_is_seen_when_asked_for(sites: Sites) -> None:
    sites.server.paths["/changing"] = versioned(PHOTO, cache_control="no-cache")
    first = await sites.answer("/changing")
    sites.server.paths["/changing"] = versioned(encoded(photo().resize((100, 100)), "PNG"))
    second = await sites.answer("/changing")
    assert [found["width"] for found in (first, second)] == [400, 100]


@pytest.mark.parametrize("rule", ["no-store", "private, max-age=600"])
async def test_image_that_may_not_be_stored_is_fetched_each_time(sites: Sites, rule: str) -> None:
    path = f"/unstored-{rule[:7]}"
    sites.server.paths[path] = versioned(PHOTO, cache_control=rule)
    for width in (60, 61):
        await sites.answer(path, f"resize:{width}x")
    assert ["if-none-match" in asked.headers for asked in await sites.asked(path)] == [False, False]


async def test_kept_image_is_not_used_where_its_server_fails(sites: Sites) -> None:
    """Rather an error than what may be stale."""
    sites.server.paths["/gone"] = versioned(PHOTO, cache_control="no-cache")
    await sites.answer("/gone", "resize:70x")
    sites.server.paths["/gone"] = answer(b"", 503)
    assert (await sites.post("/gone", "resize:70x")).status_code == 502


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.2/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:127.0.0.1]/",
        "http://localhost:1/",
        "http://10.0.0.1/",
    ],
)
async def test_refused_address_is_403(sites: Sites, url: str) -> None:
    """`localhost` is ::1 as well, which nobody opened, or nothing but what was opened: then nobody listens."""
    response = await sites.post(url)
    assert response.status_code in ((403,) if "localhost" not in url else (403, 502))
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["detail"].startswith("the ")


async def test_redirect_to_a_refused_address_is_403(sites: Sites) -> None:
    sites.server.paths["/inside"] = redirect("http://169.254.169.254/latest/")
    response = await sites.post("/inside")
    assert response.status_code == 403
    assert "169.254" not in response.text


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "http://nothing.invalid/"])
async def test_unreachable_address_is_502(sites: Sites, url: str) -> None:
    assert (await sites.post(url)).status_code == 502


async def test_slow_server_is_504(sites: Sites) -> None:
    sites.server.paths["/silent"] = silent
    sites.server.paths["/drip"] = endless(b"HTTP/1.1 200 OK\r\n\r\n", b"x", 0.05)
    responses = await asyncio.gather(sites.post("/silent"), sites.post("/drip"))
    assert [response.status_code for response in responses] == [504, 504]


async def test_too_large_image_is_413(sites: Sites) -> None:
    sites.server.paths["/announced"] = answer(b"x", content_length=str(21 * MIB))
    sites.server.paths["/endless"] = endless(b"HTTP/1.1 200 OK\r\n\r\n", bytes(MIB))
    assert [(await sites.post(path)).status_code for path in ("/announced", "/endless")] == [413, 413]


@pytest.mark.parametrize(("body", "status"), [(b"<html>", 415), (b"", 415), (PHOTO[:2000], 422)])
async def test_what_is_no_image_is_refused_and_not_kept(sites: Sites, body: bytes, status: int) -> None:
    path = f"/page-{len(body)}"
    sites.server.paths[path] = versioned(body, cache_control="max-age=600")
    assert [(await sites.post(path)).status_code for _ in range(2)] == [status, status]
    assert len(await sites.asked(path)) == 2


async def test_status_of_the_other_server_is_told(sites: Sites) -> None:
    response = await sites.post("/nothing-here")
    assert (response.status_code, "status 404" in response.json()["detail"]) == (502, True)


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"image_url": "ftp://example.com/a.png"}, "image_url"),
        ({"image_url": "http://user:secret@example.com/"}, "image_url"),
        ({"image_url": "http://2130706433/"}, "image_url"),
        ({"image_url": "http://127.0.0.1/", "operations": ["paint"]}, "operations[0]"),
        ({"image_url": "http://127.0.0.1/", "operations": ["blur:1"] * 17}, "body.operations"),
        ({"image_url": "http://127.0.0.1/", "quality": 101}, "body.quality"),
        ({"image_url": "http://127.0.0.1/", "format": "tiff"}, "body.format"),
        ({"image_url": "http://127.0.0.1/", "op": ["blur:1"]}, "body.op"),
        ({"operations": []}, "body.image_url"),
    ],
)
async def test_field_that_is_wrong_is_named(sites: Sites, document: dict[str, Any], field: str) -> None:
    response = await sites.http.post("/", json=document)
    assert (response.status_code, response.json()["errors"][0]["field"].startswith(field)) == (422, True), response.text
    assert "secret" not in response.text


@pytest.mark.parametrize(("body", "status"), [(b"{", 422), (b"{" * 70_000, 413), (b"[]", 422)])
async def test_document_that_cannot_be_read_is_refused(sites: Sites, body: bytes, status: int) -> None:
    response = await sites.http.post("/", content=body, headers={"content-type": "application/json"})
    assert response.status_code == status


async def test_operations_stand_in_one_place(sites: Sites) -> None:
    response = await sites.http.post("/?op=blur:1", json={"image_url": f"{sites.server.url}/photo.jpg"})
    assert response.status_code == 422


async def test_image_whose_bytes_were_tidied_away_is_fetched_again(sites: Sites, tmp_path: Any) -> None:
    async with (
        run_function(FUNCTIONS / "image-processor", STORAGE_URL=f"file://{tmp_path}", **OPENED) as process,
        httpx2.AsyncClient(base_url=process.url, timeout=30, trust_env=False) as http,
    ):
        mine = Sites(http, sites.server)
        sites.server.paths["/tidied"] = versioned(PHOTO, cache_control="max-age=600")
        await mine.answer("/tidied", "resize:20x")
        for stored in tmp_path.rglob("*"):
            if stored.is_file():
                stored.unlink()
        assert (await mine.answer("/tidied", "resize:21x"))["width"] == 21
    assert len(await sites.asked("/tidied")) == 2


async def test_nothing_inside_is_open_by_default() -> None:
    async with (
        hostile_server() as server,
        run_function(FUNCTIONS / "image-processor", LOG_LEVEL="INFO") as process,
        httpx2.AsyncClient(base_url=process.url, timeout=30, trust_env=False) as http,
    ):
        mine = Sites(http, server)
        assert (await mine.post("/")).status_code == 403
        assert (await mine.post("http://127.0.0.1/")).status_code == 403
        assert server.connections == 0
        assert any("127.0.0.1 is refused (loopback)" in str(line) for line in process.logs())


async def test_secrets_in_a_url_are_told_nobody() -> None:
    """Neither logs nor spans nor metrics nor answers have the query of an image_url, whether it works or not."""
    canary = "canary-5ecr37-value"
    with otlp_sink() as sink:
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url, "OTEL_BSP_SCHEDULE_DELAY": "100", **OPENED}
        async with hostile_server() as server, run_function(FUNCTIONS / "image-processor", **settings) as process:
            await process.ready()
            server.paths["/signed"] = answer(PHOTO, 200, etag='"1"')
            server.paths["/away"] = redirect(f"http://10.0.0.1/?token={canary}")
            async with httpx2.AsyncClient(base_url=process.url, timeout=30, trust_env=False) as http:
                mine = Sites(http, server)
                paths = (f"/signed?sig={canary}", f"/away?{canary}", f"http://u:{canary}@example.com/", f"/?{canary}")
                answers = [await mine.post(path) for path in paths]
            metrics = (await call(process.metrics_port, "/metrics")).body.decode()
            process.send_signal(signal.SIGTERM)
            assert await process.exited() == 0
            output = process.output()
    assert [found.status_code for found in answers] == [200, 403, 422, 502]
    assert [span.name for span in sink.spans if span.kind == "CLIENT"].count("GET") == 4
    seen = [*sink.raw, output, metrics, *(found.text for found in answers)]
    assert [text for text in seen if canary in text] == []

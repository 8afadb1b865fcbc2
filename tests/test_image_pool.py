"""The image-processor under load: a bounded number of images at a time, 429 for the rest, no place lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
import yaml
from PIL import Image

from tests.child import Process
from tests.otlp_sink import otlp_sink
from tests.pictures import encoded, photo
from tests.processes import run_function
from tests.staging import FUNCTIONS, ROOT

pytestmark = pytest.mark.anyio

MIB = 1024 * 1024
SLOW = {"op": ["blur:100"] * 8}
"""Keeps one core busy for a good third of a second with a `large` image."""


@asynccontextmanager
async def image_processor(**env: str) -> AsyncIterator[tuple[Process, httpx2.AsyncClient]]:
    async with (
        run_function(FUNCTIONS / "image-processor", **env) as process,
        httpx2.AsyncClient(base_url=process.url, timeout=30) as http,
    ):
        # Healthy is not yet started, and some of these tests are about time.
        await process.ready()
        yield process, http


def large(number: int) -> bytes:
    """Return a different image for each *number*, so that none is in the cache."""
    return encoded(photo(1200 + number, 1000), "JPEG")


def memory(process: Process, name: str) -> int:
    """Return ``VmHWM`` (the peak) or ``VmRSS`` of *process* in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) * 1024


async def test_calls_beyond_the_queue_get_429_and_the_others_their_turn() -> None:
    async with image_processor(IMAGE_WORKERS="1", IMAGE_QUEUE="2") as (_, http):
        calls = [http.post("/", params=SLOW, content=large(number)) for number in range(8)]
        answers = await asyncio.gather(*calls)
        assert Counter(answer.status_code for answer in answers) == {200: 3, 429: 5}
        refused = next(answer for answer in answers if answer.status_code == 429)
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.headers["content-type"] == "application/problem+json"
        assert (await http.post("/", content=large(0))).status_code == 200


async def test_call_that_waits_too_long_for_its_turn_gets_429() -> None:
    async with image_processor(IMAGE_WORKERS="1", IMAGE_QUEUE="5", IMAGE_WAIT="200ms") as (_, http):
        calls = [http.post("/", params=SLOW, content=large(number)) for number in range(4)]
        answers = await asyncio.gather(*calls)
        assert Counter(answer.status_code for answer in answers) == {200: 1, 429: 3}


async def test_callers_who_go_away_leave_their_place_to_others() -> None:
    async with image_processor(IMAGE_WORKERS="1", IMAGE_QUEUE="1") as (_, http):
        for number in range(4):
            with pytest.raises(httpx2.ReadTimeout):
                await http.post("/", params=SLOW, content=large(number), timeout=0.2)
        # The work that nobody waits for stops after its current step.
        started = time.monotonic()
        assert (await http.post("/", content=large(9))).status_code == 200
        assert time.monotonic() - started < 3


async def test_equal_calls_at_once_are_processed_once() -> None:
    async with image_processor(IMAGE_WORKERS="1") as (_, http):
        body = large(0)
        answers = await asyncio.gather(*(http.post("/", params=SLOW, content=body) for _ in range(6)))
        assert Counter(answer.json()["cached"] for answer in answers) == {True: 5, False: 1}


async def test_loop_answers_while_images_are_worked_on() -> None:
    async with image_processor() as (_, http), asyncio.TaskGroup() as busy:
        for number in range(4):
            busy.create_task(http.post("/", params=SLOW, content=large(number)))
        await asyncio.sleep(0.2)
        for _ in range(10):
            started = time.monotonic()
            assert (await http.get("/openapi.json")).status_code == 200
            assert time.monotonic() - started < 0.5


async def test_large_photograph_is_shrunk_in_little_memory() -> None:
    """JPEG is decoded at a fraction of its size, else these 48 megapixels would take 190 MB."""
    image = Image.radial_gradient("L").resize((8000, 6000)).convert("RGB")
    body = await asyncio.to_thread(encoded, image, "JPEG")
    async with image_processor() as (process, http):
        before = memory(process, "VmRSS")
        answer = await http.post("/", params={"op": "resize:800x600"}, content=body)
        assert answer.json()["width"] == 800
        assert memory(process, "VmHWM") - before < 64 * MIB


def poster(number: int) -> bytes:
    """Return the image that takes most memory: 50 megapixels of WebP with transparency, in as many bytes as may be."""
    image = Image.new("RGBA", (8300 + number, 6000), (number, 2, 3, 100))
    return padded(encoded(image, "WEBP", lossless=True, method=0))


def padded(body: bytes, size_bytes: int = 19 * MIB) -> bytes:
    """Return *body* with as many bytes behind it as decoders do not care about."""
    return body + bytes(size_bytes - len(body))


async def test_large_images_at_once_and_one_after_the_other_stay_within_the_stack_files_memory() -> None:
    """Two posters, and as many large uploads beside them as callers like to send."""
    stack = yaml.safe_load((ROOT / "stack.yml").read_text())["functions"]["image-processor"]
    assert (stack["limits"]["memory"], stack["environment"].get("IMAGE_WORKERS")) == ("1Gi", None)
    posters = [await asyncio.to_thread(poster, number) for number in range(2)]
    async with (
        image_processor(**stack["environment"], IMAGE_WORKERS="4") as (process, http),
        asyncio.TaskGroup() as calls,
    ):
        params = {"op": "blur:1", "format": "png"}
        large_ones = [calls.create_task(http.post("/", params=params, content=body)) for body in posters]
        await asyncio.sleep(0.5)
        others = [http.post("/", content=padded(large(number))) for number in range(12)]
        assert Counter(answer.status_code for answer in await asyncio.gather(*others))[429] >= 9
        assert {(await call).status_code for call in large_ones} == {200}
        assert (await http.post("/", content=padded(large(0)))).status_code == 200
        assert memory(process, "VmHWM") < 1024 * MIB
        # What is over has been given back to the system.
        assert memory(process, "VmRSS") < 200 * MIB


async def test_bodies_that_are_refused_leave_no_memory_behind() -> None:
    async with image_processor(IMAGE_UPLOADS_MIB="20") as (process, http):
        before = memory(process, "VmRSS")
        for number in range(10):
            body = padded(large(number))
            assert (await http.post("/", params={"op": "crop:0,0,9999,1"}, content=body)).status_code == 422
            assert (await http.post("/", content=bytes(19 * MIB) + body[:1])).status_code == 415
        assert memory(process, "VmHWM") - before < 64 * MIB


@pytest.mark.parametrize("framing", [b"Content-Length: 15728640", b"Transfer-Encoding: chunked"])
async def test_upload_for_which_others_leave_no_room_gets_429(framing: bytes) -> None:
    """Counted are the announced bytes, or those that have come; a caller who goes away gives them back."""
    first = bytes(15 * MIB)
    sent = first[: 10 * MIB] if b"Length" in framing else b"f00000\r\n" + first + b"\r\n"
    async with image_processor(IMAGE_UPLOADS_MIB="20") as (process, http):
        _, writer = await asyncio.open_connection("127.0.0.1", process.port)
        writer.write(b"POST / HTTP/1.1\r\nHost: probe\r\n" + framing + b"\r\n\r\n" + sent)
        await writer.drain()
        body = padded(large(0), 15 * MIB)
        await until(lambda: http.post("/", content=body), 429)
        assert (await http.post("/", content=large(1))).status_code == 200
        writer.close()
        await until(lambda: http.post("/", content=body), 200)


async def until(call: Callable[[], Awaitable[httpx2.Response]], status: int) -> None:
    """Repeat *call* until its answer has *status*."""
    async with asyncio.timeout(5):
        while (await call()).status_code != status:  # noqa: ASYNC110 - what is waited for is another process
            await asyncio.sleep(0.05)


async def test_who_waits_for_the_same_result_gets_it_when_the_first_caller_leaves() -> None:
    """The work goes on with the first one's body."""
    async with image_processor(IMAGE_WORKERS="1") as (_, http):
        body = large(0)
        first = asyncio.create_task(http.post("/", params=SLOW, content=body))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(http.post("/", params=SLOW, content=body))
        await asyncio.sleep(0.05)
        first.cancel()
        assert (await second).status_code == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [("IMAGE_WORKERS", "many"), ("IMAGE_QUEUE", "0"), ("IMAGE_WAIT", "-1s"), ("IMAGE_UPLOADS_MIB", "19")],
)
async def test_bad_setting_stops_the_start_by_name(name: str, value: str) -> None:
    async with run_function(FUNCTIONS / "image-processor", **{name: value}).unwaited() as process:
        assert await process.exited() == 1
        assert f"setting {name}" in process.output()
        assert "many" not in process.output()


async def test_one_trace_holds_the_cache_the_work_and_the_store() -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    with otlp_sink() as sink:
        async with image_processor(OTEL_EXPORTER_OTLP_ENDPOINT=sink.url) as (_, http):
            headers = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
            answer = await http.post("/", params={"op": "resize:80x60"}, content=large(0), headers=headers)
            assert answer.status_code == 200
        spans = {span.name: span for span in sink.spans if span.trace_id == trace_id}
        assert {"cache.get", "cache.load", "image.process", "storage.put", "cache.set"} <= set(spans)
        assert spans["image.process"].parent_id == spans["cache.load"].span_id
        assert spans["storage.put"].parent_id == spans["cache.load"].span_id
        assert spans["image.process"].attributes["image.operations"] == ["resize:80x60,contain"]

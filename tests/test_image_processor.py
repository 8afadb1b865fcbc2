"""The image-processor as its callers see it: one process, real image files, answers and stored results looked at."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

from tests import pictures
from tests.child import Process
from tests.pictures import BLUE, RED, WHITE, encoded, halves, opened, photo
from tests.processes import run_function
from tests.staging import FUNCTIONS

MIB = 1024 * 1024


@dataclass
class Function:
    """The running function, called as `curl` would."""

    process: Process
    http: httpx2.Client

    def post(self, body: bytes, *ops: str, **query: str) -> httpx2.Response:
        return self.http.post("/", params=[*(("op", op) for op in ops), *query.items()], content=body)

    def answer(self, body: bytes, *ops: str, **query: str) -> dict[str, Any]:
        """Return the answer of a call that succeeds."""
        response = self.post(body, *ops, **query)
        assert response.status_code == 200, response.text
        found: dict[str, Any] = response.json()
        return found

    def image(self, body: bytes, *ops: str, **query: str) -> Image.Image:
        """Return the stored result of a call, checked against what the answer says of it."""
        answer = self.answer(body, *ops, **query)
        fetched = self.http.get(answer["processed_url"])
        assert fetched.headers["content-type"] == f"image/{answer['format']}"
        assert len(fetched.content) == answer["bytes"]
        image = opened(fetched.content)
        assert (*image.size, str(image.format).lower()) == (answer["width"], answer["height"], answer["format"])
        return image

    def problem(self, body: bytes, *ops: str, **query: str) -> dict[str, Any]:
        """Return the problem details of a call that fails."""
        response = self.post(body, *ops, **query)
        assert response.headers["content-type"] == "application/problem+json", response.text
        found: dict[str, Any] = response.json()
        assert found["status"] == response.status_code
        return found

    def peak_bytes(self) -> int:
        """Return the most memory that the process has ever held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.fixture(scope="module")
def function() -> Iterator[Function]:
    with (
        run_function(FUNCTIONS / "image-processor", LOG_LEVEL="INFO") as process,
        httpx2.Client(base_url=process.url, timeout=30) as http,
    ):
        yield Function(process, http)


def near(pixel: float | Sequence[int] | None, colour: Sequence[int]) -> bool:
    """Tell whether *pixel* is *colour*, as far as lossy formats keep it."""
    assert isinstance(pixel, tuple)
    return all(abs(a - b) < 40 for a, b in zip(pixel, colour, strict=True))


def sides(image: Image.Image) -> tuple[str, str]:
    """Return what is in the middle of the left and of the right half."""
    rgb, names = image.convert("RGB"), {"red": RED, "blue": BLUE, "white": WHITE}
    pixels = [rgb.getpixel((rgb.width * part // 4, rgb.height // 2)) for part in (1, 3)]
    left, right = (next((n for n, c in names.items() if near(pixel, c)), str(pixel)) for pixel in pixels)
    return left, right


@pytest.mark.parametrize("written", ["jpeg", "png", "webp", "avif"])
@pytest.mark.parametrize("read", ["JPEG", "PNG", "WEBP", "AVIF", "GIF"])
def test_each_format_is_read_and_written(function: Function, read: str, written: str) -> None:
    image = function.image(encoded(halves(), read), format=written)
    assert sides(image) == ("red", "blue")
    assert image.format == written.upper()


@pytest.mark.parametrize(("read", "kept"), [("JPEG", "jpeg"), ("PNG", "png"), ("WEBP", "webp"), ("GIF", "png")])
def test_format_is_kept_where_none_is_asked_for(function: Function, read: str, kept: str) -> None:
    assert function.answer(encoded(halves(), read))["format"] == kept


@pytest.mark.parametrize(
    ("operation", "size"),
    [
        ("resize:200x200", (200, 150)),
        ("resize:800x600", (800, 600)),
        ("resize:200x", (200, 150)),
        ("resize:x100", (133, 100)),
        ("resize:200x200,cover", (200, 200)),
        ("resize:200x200,fill", (200, 200)),
        ("resize:1x1", (1, 1)),
        ("thumbnail:100", (100, 75)),
        ("thumbnail:1000", (400, 300)),
        ("thumbnail:1000x30", (40, 30)),
        ("crop:10,20,100,50", (100, 50)),
        ("rotate:90", (300, 400)),
        ("rotate:-90", (300, 400)),
        ("rotate:180", (400, 300)),
        ("rotate:360", (400, 300)),
        ("rotate:45", (495, 495)),
        ("flip:horizontal", (400, 300)),
        ("flip:vertical", (400, 300)),
        ("grayscale", (400, 300)),
        ("blur:2.5", (400, 300)),
        ("sharpen", (400, 300)),
        ("convert:webp,50", (400, 300)),
    ],
)
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_operation_gives_its_size(function: Function, operation: str, size: tuple[int, int], format: str) -> None:
    assert function.image(encoded(photo(), format), operation).size == size


def test_operations_are_done_in_their_order(function: Function) -> None:
    body = encoded(halves(400, 300), "PNG")
    assert function.image(body, "rotate:90", "crop:0,0,300,100").size == (300, 100)
    assert function.problem(body, "crop:0,0,300,100", "crop:0,0,300,101")["errors"][0]["field"] == "op[1]"
    answer = function.answer(body, "resize:200x200", "grayscale", "convert:webp")
    assert (answer["operations_count"], answer["format"]) == (3, "webp")


def test_pixels_go_where_the_operation_says(function: Function) -> None:
    body = encoded(halves(), "PNG")
    assert sides(function.image(body, "flip:horizontal")) == ("blue", "red")
    assert sides(function.image(body, "flip:vertical")) == ("red", "blue")
    assert sides(function.image(body, "crop:0,0,20,30")) == ("red", "red")
    assert sides(function.image(body, "resize:10x10,cover")) == ("red", "blue")
    # Clockwise: what was on the left is on top.
    turned = function.image(body, "rotate:90").convert("RGB")
    assert [near(turned.getpixel((15, y)), c) for y, c in ((5, RED), (35, BLUE))] == [True, True]
    leaning = function.image(body, "rotate:30").convert("RGBA")
    corner, top, bottom = (leaning.getpixel(place) for place in ((0, 0), (12, 20), (38, 30)))
    assert isinstance(corner, tuple)
    assert (corner[3], near(top, (*RED, 255)), near(bottom, (*BLUE, 255))) == (0, True, True)


def test_effects_change_what_they_should(function: Function) -> None:
    body = encoded(halves(), "PNG")
    assert function.image(body, "grayscale").mode == "L"
    middle = function.image(body, "blur:5").convert("RGB").getpixel((20, 15))
    assert isinstance(middle, tuple)
    assert 60 < middle[0] < 195
    soft = photo().resize((100, 75)).resize((400, 300))
    sharpened = function.image(encoded(soft, "PNG"), "sharpen:300")
    assert len(encoded(sharpened, "PNG")) > len(encoded(soft, "PNG"))


def test_quality_is_used(function: Function) -> None:
    body = encoded(photo(), "PNG")
    for format in ("jpeg", "webp", "avif"):
        low, high = (function.answer(body, format=format, quality=quality)["bytes"] for quality in ("10", "95"))
        assert low < high
    assert function.answer(body, "convert:jpeg,10")["bytes"] < function.answer(body, "convert:jpeg,95")["bytes"]


@pytest.mark.parametrize("operations", [(), ("resize:200x150",), ("resize:200x100,fill",), ("thumbnail:50",)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photograph_is_upright_and_tells_nothing(
    function: Function, orientation: int, operations: tuple[str, ...]
) -> None:
    body = pictures.with_orientation(orientation)
    image = function.image(body, *operations)
    assert (image.width > image.height, sides(image)) == (True, ("red", "blue"))
    assert not image.getexif()


@pytest.mark.parametrize("format", ["jpeg", "png", "webp", "avif"])
def test_metadata_is_dropped(function: Function, format: str) -> None:
    exif = Image.Exif()
    exif[0x010E] = "canary"
    body = encoded(halves(), "JPEG", exif=exif, comment=b"canary", dpi=(300, 300), icc_profile=_srgb(), xmp=b"canary")
    fetched = function.http.get(function.answer(body, format=format)["processed_url"])
    assert b"canary" not in fetched.content
    assert not {"icc_profile", "exif", "comment", "xmp"} & set(opened(fetched.content).info)


@pytest.mark.parametrize("operations", [(), ("resize:20x20",), ("grayscale",)])
def test_colours_of_another_profile_become_srgb(function: Function, operations: tuple[str, ...]) -> None:
    body = encoded(halves(), "PNG", icc_profile=pictures.swapped_profile())
    plain = encoded(halves().transpose(Image.Transpose.FLIP_LEFT_RIGHT), "PNG")
    converted, expected = function.image(body, *operations), function.image(plain, *operations)
    assert sides(converted) == sides(expected)


def test_broken_profile_is_no_reason_to_refuse(function: Function) -> None:
    assert sides(function.image(encoded(halves(), "PNG", icc_profile=b"no profile"))) == ("red", "blue")


def test_cmyk_becomes_rgb(function: Function) -> None:
    body = encoded(halves(400, 300, mode="CMYK"), "JPEG")
    for operations in ((), ("resize:40x30",)):
        image = function.image(body, *operations)
        assert (image.mode, sides(image)) == ("RGB", ("red", "blue"))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_kept_or_becomes_white(function: Function, mode: str) -> None:
    image = halves(mode="RGBA")
    image.paste((0, 0, 0, 0), (20, 0, 40, 30))
    body = encoded(image.convert(mode), "PNG")
    kept, flat = function.image(body, "resize:20x15").convert("RGBA"), function.image(body, format="jpeg")
    clear, solid = kept.getpixel((15, 7)), kept.getpixel((5, 7))
    assert isinstance(clear, tuple)
    assert isinstance(solid, tuple)
    assert (clear[3], solid[3], sides(flat)[1]) == (0, 255, "white")


def test_blur_does_not_bleed_hidden_colours(function: Function) -> None:
    image = Image.new("RGBA", (40, 30), (0, 255, 0, 0))
    image.paste((*RED, 255), (10, 5, 30, 25))
    edge = function.image(encoded(image, "PNG"), "blur:3").getpixel((9, 15))
    assert isinstance(edge, tuple)
    assert (edge[1] < 40, 0 < edge[3] < 255) == (True, True)


def test_sixteen_bits_of_grey_are_scaled_to_eight(function: Function) -> None:
    assert function.image(pictures.sixteen_bit_grey(0x8080)).getpixel((5, 5)) == 0x80


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "AVIF"])
def test_first_frame_of_an_animation_is_used(function: Function, format: str) -> None:
    assert sides(function.image(pictures.animation(format), format="png")) == ("red", "red")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "GIF"])
def test_image_that_is_cut_short_is_422(function: Function, format: str) -> None:
    body = encoded(photo(), format)
    problem = function.problem(body[: len(body) // 2])
    assert (problem["status"], problem["errors"][0]["field"]) == (422, "body")


def test_avif_that_is_cut_short_is_not_even_one(function: Function) -> None:
    body = encoded(photo(), "AVIF")
    assert function.problem(body[: len(body) // 2])["status"] == 415


@pytest.mark.parametrize("body", [b"", b"hello", b"%PDF-1.7 ...", b"<svg xmlns='http://www.w3.org/2000/svg'/>"])
def test_what_is_no_image_is_415(function: Function, body: bytes) -> None:
    assert function.problem(body)["status"] == 415


def test_kind_of_image_that_is_not_read_is_415(function: Function) -> None:
    assert function.problem(encoded(halves(), "TIFF"))["status"] == 415
    assert function.problem(encoded(halves(), "BMP"))["status"] == 415


@pytest.mark.parametrize(
    ("ops", "field"),
    [
        (["resize:0x5"], "op[0]"),
        (["resize:x"], "op[0]"),
        (["resize:800"], "op[0]"),
        (["resize:20000x1"], "op[0]"),
        (["resize:10x,cover"], "op[0]"),
        (["resize:10x10,stretch"], "op[0]"),
        (["resize:١x1"], "op[0]"),
        (["grayscale", "melt"], "op[1]"),
        (["grayscale:1"], "op[0]"),
        (["thumbnail"], "op[0]"),
        (["crop:1,2,3"], "op[0]"),
        (["crop:0,0,41,30"], "op[0]"),
        (["crop:-1,0,1,1"], "op[0]"),
        (["rotate:361"], "op[0]"),
        (["rotate:nan"], "op[0]"),
        (["flip:diagonal"], "op[0]"),
        (["blur:0"], "op[0]"),
        (["blur:101"], "op[0]"),
        (["sharpen:0"], "op[0]"),
        (["sharpen:1,2"], "op[0]"),
        (["convert:tiff"], "op[0]"),
        (["convert:png,80"], "quality"),
        (["convert:webp", "convert:png"], "op[1]"),
        (["resize:16000x16000,fill"], "op[0]"),
        (["resize:16384x3000,fill", "convert:webp"], "format"),
        ([""], "op[0]"),
    ],
)
def test_operation_that_cannot_be_done_is_422_with_its_place(function: Function, ops: list[str], field: str) -> None:
    problem = function.problem(encoded(halves(), "PNG"), *ops)
    assert (problem["status"], [error["field"] for error in problem["errors"]]) == (422, [field])


def test_every_operation_that_cannot_be_read_is_named(function: Function) -> None:
    errors = function.problem(b"", "melt", "grayscale", "rotate:x")["errors"]
    assert [error["field"] for error in errors] == ["op[0]", "op[2]"]


def test_format_twice_is_422(function: Function) -> None:
    assert function.problem(b"", "convert:webp", format="png")["errors"][0]["field"] == "op[0]"


@pytest.mark.parametrize("query", [{"format": "tiff"}, {"quality": "0"}, {"quality": "high"}])
def test_parameter_out_of_range_is_422(function: Function, query: dict[str, str]) -> None:
    assert function.problem(b"", **query)["status"] == 422


def test_more_than_sixteen_operations_are_422(function: Function) -> None:
    assert function.problem(b"", *["grayscale"] * 17)["status"] == 422


def test_more_than_20_mib_are_413_whether_announced_or_not(function: Function) -> None:
    body = b"\xff\xd8" + bytes(20 * MIB)
    assert function.problem(body)["status"] == 413

    def pieces() -> Iterator[bytes]:
        for _ in range(21):
            yield bytes(MIB)

    assert function.http.post("/", content=pieces()).status_code == 413


def test_more_than_50_megapixels_are_413_at_once_and_in_no_memory(function: Function) -> None:
    bombs = [
        pictures.png_bomb(20_000, 20_000),
        pictures.png_bomb(7072, 7072),
        pictures.png_bomb(2**31 - 1, 2**31 - 1),
        encoded(Image.new("RGB", (16_000, 4000)), "WEBP", lossless=True, method=0),
        encoded(Image.new("L", (16_000, 4000)), "JPEG"),
        encoded(Image.new("P", (16_000, 4000)), "GIF"),
    ]
    before, started = function.peak_bytes(), time.monotonic()
    assert [function.problem(bomb, "resize:10x10")["status"] for bomb in bombs] == [413] * len(bombs)
    assert time.monotonic() - started < 3
    assert function.peak_bytes() - before < 32 * MIB


def test_bomb_below_the_limit_and_one_in_the_comments_stay_within_bounds(function: Function) -> None:
    whole = pictures.png_bomb(7000, 7000, zeros=7000 * 7001)
    assert len(whole) < MIB
    assert function.answer(whole, "resize:10x10")["width"] == 10
    assert function.post(pictures.png_with_text_bomb()).status_code in (200, 422)
    assert function.peak_bytes() < 512 * MIB


def test_second_call_is_answered_from_the_cache_with_an_address_that_opens(function: Function) -> None:
    body = encoded(photo(500, 400), "JPEG")
    first, second = (function.answer(body, "resize:80x60") for _ in range(2))
    assert (first["cached"], second["cached"]) == (False, True)
    assert {k: second[k] for k in ("width", "height", "bytes")} == {k: first[k] for k in ("width", "height", "bytes")}
    assert function.http.get(second["processed_url"]).status_code == 200
    # Another spelling of the same is the same; another operation is not.
    assert function.answer(body, "resize:80x60,contain")["cached"] is True
    assert function.answer(body, "resize:80x61")["cached"] is False
    assert function.answer(body, "resize:80x60", format="webp")["cached"] is False


def test_result_that_has_gone_from_the_store_is_made_again(function: Function) -> None:
    body = encoded(photo(300, 200), "JPEG")
    function.answer(body, "resize:80x60")
    for stored in (function.process.folder.parent / "objects" / "sha256").rglob("*"):
        if stored.is_file():
            stored.unlink()
    again = function.answer(body, "resize:80x60")
    assert again["cached"] is False
    assert function.http.get(again["processed_url"]).status_code == 200


def test_api_document_tells_how_to_call_it(function: Function) -> None:
    post = function.http.get("/openapi.json").json()["paths"]["/"]["post"]
    assert post["requestBody"]["content"]["image/*"]["schema"] == {"type": "string", "format": "binary"}
    assert {"op", "format", "quality"} == {parameter["name"] for parameter in post["parameters"]}
    assert "resize:800x600" in post["description"]
    for status in ("413", "415", "422", "429"):
        assert list(post["responses"][status]["content"]) == ["application/problem+json"]


def _srgb() -> bytes:
    return pictures.swapped_profile().replace("swap".encode("utf-16-be"), "sRGB".encode("utf-16-be"))

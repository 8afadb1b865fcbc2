"""Decode, change and encode one image, in as little memory as it takes; everything here blocks."""

from dataclasses import dataclass
from io import BytesIO
from threading import Event
from typing import Any

from PIL import Image, ImageCms, features

from faasbase import FieldError, Problem

from .grammar import Format, Wanted
from .operations import Operation, Resize, Size, Thumbnail
from .pool import StoppedError
from .sources import Source, damaged, open_image, too_large, turned

QUALITY = {"jpeg": 85, "webp": 80, "avif": 60}
"""What is used where none is asked for; PNG has none."""
MAX_PIXELS_OF = {"avif": 16_000_000, "webp": 30_000_000}
"""What their encoders get done in 512 MB: AVIF takes half a second and 25 MB for each megapixel, WebP 16 MB."""
MAX_SIDE_OF = {"jpeg": 65_535, "png": 2**31 - 1, "webp": 16_383, "avif": 65_535}

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image of each EXIF orientation upright."""

# One thread: the pool decides how many cores are used.
_OPTIONS: dict[str, dict[str, Any]] = {"avif": {"speed": 8, "max_threads": 1}, "webp": {"method": 4}}


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps with the size after each, known to be possible."""

    source: Source
    steps: tuple[tuple[Operation, Size], ...]
    format: Format
    quality: int | None

    @property
    def size(self) -> Size:
        return self.steps[-1][1] if self.steps else self.source.size

    @property
    def memory_pixels(self) -> int:
        """Pixels in memory at once, at the price of the worst decoder; AVIF's encoder takes nearly twice that."""
        encoded = self.size[0] * self.size[1] * (2 if self.format == "avif" else 1)
        return max(self.source.memory_pixels, encoded, *(size[0] * size[1] for _, size in self.steps))


@dataclass(frozen=True, slots=True)
class Encoded:
    """The result."""

    data: bytes
    width: int
    height: int
    format: Format


def plan(source: Source, wanted: Wanted, max_pixels: int) -> Plan:
    """
    Return how to make what is wanted of *source*.

    Raises:
        Problem: 422 with the operation, format or quality that is impossible for this image.
    """
    size, steps = source.size, list[tuple[Operation, Size]]()
    for field, operation in zip(wanted.fields, wanted.operations, strict=True):
        try:
            size = operation.size_after(size)
        except ValueError as exc:
            raise _impossible(field, str(exc)) from None
        if size[0] * size[1] > max_pixels:
            raise _impossible(field, f"would make {size[0]}x{size[1]}, over {max_pixels // 1_000_000} megapixels")
        steps.append((operation, size))
    # A GIF's palette and a single frame of it are best kept as PNG.
    format: Format = wanted.format or ("png" if source.format == "gif" else source.format)  # type: ignore[assignment]
    _check_format(format, wanted.quality, size)
    return Plan(source, tuple(steps), format, wanted.quality)


def process(upload: BytesIO, plan: Plan, max_pixels: int, stop: Event) -> Encoded:
    """
    Return the image that *plan* makes of *upload*; of an animation the first frame.

    Raises:
        Problem: 422, the image is damaged; 413, there is not enough memory for it.
        StoppedError: *stop* was set.
    """
    try:
        return _processed(upload, plan, max_pixels, stop)
    except MemoryError:
        raise too_large(max_pixels) from None


def _processed(upload: BytesIO, plan: Plan, max_pixels: int, stop: Event) -> Encoded:
    image = _decoded(upload, plan, max_pixels)
    steps = list(plan.steps)
    if steps and isinstance(steps[0][0], Resize | Thumbnail):
        # Colours cost by the pixel: what is made smaller anyway gets smaller first.
        image = _applied(image, *steps.pop(0), stop)
    image = _in_srgb(image)
    for operation, size in steps:
        image = _applied(image, operation, size, stop)
    if stop.is_set():
        raise StoppedError
    return _encoded(image, plan.format, plan.quality)


def _decoded(upload: BytesIO, plan: Plan, max_pixels: int) -> Image.Image:
    image = open_image(upload, max_pixels)
    orientation = plan.source.orientation
    first = plan.steps[0][0] if plan.steps else None
    if plan.source.format == "jpeg" and isinstance(first, Resize | Thumbnail):
        # JPEG can be decoded at a half, a quarter or an eighth, for that part of the time and memory.
        image.draft(None, turned(first.decode_size(plan.source.size), orientation))
    try:
        image.load()
        _let_go(image)
        # Orientation can only be wrong here: `look_at` has read it from this very file.
        upright = image.transpose(TURNS[orientation]) if orientation in TURNS else image
        return _plain(upright)
    except Exception as exc:
        raise damaged() from exc


def _let_go(image: Image.Image) -> None:
    """Free what decoders keep for further frames, two more images' worth in WebP's case."""
    for kept in ("_decoder", "fp"):
        if kept in vars(image):
            setattr(image, kept, None)


def _plain(image: Image.Image) -> Image.Image:
    """Return *image* in a mode that can be scaled: no palette, eight bits, alpha where there is transparency."""
    if image.mode.startswith("I"):
        # 16 bits of grey; Pillow's own conversion would cut them off, not scale them.
        return image.convert("I").point(lambda value: value / 257).convert("L")
    if image.mode in ("L", "LA", "RGB", "RGBA", "CMYK") and "transparency" not in image.info:
        return image
    if image.mode in ("1", "L", "LA"):
        return image.convert("LA" if image.has_transparency_data else "L")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _applied(image: Image.Image, operation: Operation, size: Size, stop: Event) -> Image.Image:
    if stop.is_set():
        raise StoppedError
    profile = image.info.get("icc_profile")
    changed = operation.apply(image, size)
    if profile:
        changed.info["icc_profile"] = profile
    return changed


def _in_srgb(image: Image.Image) -> Image.Image:
    """Return *image* in sRGB, which is what everybody takes an image without a profile to be in."""
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "RGBA", "CMYK"):
        try:
            return _converted(image, profile)
        except (ImageCms.PyCMSError, ValueError, OSError):
            # A profile that is broken, or for another kind of colours, is no reason to refuse the image.
            return image.convert("RGB") if image.mode == "CMYK" else image
    return image.convert("RGB") if image.mode == "CMYK" else image


def _converted(image: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    if image.mode != "CMYK" and "sRGB" in (source.profile.profile_description or ""):
        return image
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode=mode)
    return converted or image


def _encoded(image: Image.Image, format: Format, quality: int | None) -> Encoded:
    if format == "jpeg" and image.mode in ("LA", "RGBA"):
        image = _on_white(image)
    # Pillow writes some of what it has read: profile, comment, resolution.
    image.info.clear()
    options = dict(_OPTIONS.get(format, {}))
    if format in QUALITY:
        options["quality"] = quality or QUALITY[format]
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return Encoded(buffer.getvalue(), *image.size, format)


def _on_white(image: Image.Image) -> Image.Image:
    background = Image.new(image.mode.removesuffix("A"), image.size, "white")
    # The mask is the image itself, whose alpha Pillow takes without another copy.
    background.paste(image, mask=image)
    return background


def _check_format(format: Format, quality: int | None, size: Size) -> None:
    if format in ("webp", "avif") and not features.check(format):
        raise _impossible("format", f"{format} cannot be written by this build")
    if quality is not None and format not in QUALITY:
        raise _impossible("quality", f"{format} has none")
    if size[0] * size[1] > MAX_PIXELS_OF.get(format, size[0] * size[1]):
        raise _impossible("format", f"{format} is written up to {MAX_PIXELS_OF[format] // 1_000_000} megapixels")
    if max(size) > MAX_SIDE_OF[format]:
        raise _impossible("format", f"{format} cannot be longer than {MAX_SIDE_OF[format]} pixels on a side")


def _impossible(field: str, message: str) -> Problem:
    return Problem(422, f"{field} is impossible for this image", errors=[FieldError(field, message)])

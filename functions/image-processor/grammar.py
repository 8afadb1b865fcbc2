"""Read operations as they stand in the query (``resize:800x600``) and write them in canonical form."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

from faasbase import FieldError, Problem

from .operations import MAX_SIDE, Blur, Crop, Flip, Grayscale, Operation, Resize, Rotate, Sharpen, Thumbnail

MAX_OPERATIONS = 16
MAX_BLUR_RADIUS = 100.0

Format = Literal["jpeg", "png", "webp", "avif"]
FORMATS: tuple[Format, ...] = ("jpeg", "png", "webp", "avif")

GRAMMAR = """
Operations are done in the order in which they are given:

| operation | example | meaning |
|---|---|---|
| `resize:<width>x<height>[,contain\\|cover\\|fill]` | `resize:800x600` | scale into the box; one side may be left out |
| `thumbnail:<side>` or `thumbnail:<width>x<height>` | `thumbnail:200` | shrink into the box, never enlarge |
| `crop:<x>,<y>,<width>,<height>` | `crop:10,20,400,300` | cut a rectangle out |
| `rotate:<degrees>` | `rotate:90` | turn clockwise, -360 to 360 |
| `flip:horizontal` or `flip:vertical` | `flip:horizontal` | mirror |
| `grayscale` | `grayscale` | take the colours away |
| `blur:<radius>` | `blur:2.5` | Gaussian blur, radius 0.1 to 100 pixels |
| `sharpen[:<percent>]` | `sharpen:150` | sharpen, 1 to 500 percent |
| `convert:<format>[,<quality>]` | `convert:webp,80` | the same as `format=webp&quality=80` |
"""


@dataclass(frozen=True, slots=True)
class Convert:
    """The format to write, and the quality where the format has one."""

    format: Format
    quality: int | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a call asks for."""

    operations: tuple[Operation, ...]
    fields: tuple[str, ...]
    """Where in the call each operation stands, for messages: ``op[0]``."""
    format: Format | None
    """None is the source's own."""
    quality: int | None
    operations_count: int

    @property
    def canonical(self) -> list[str]:
        """All of it in a spelling that is equal for equal results."""
        steps = [operation.canonical for operation in self.operations]
        return [*steps, f"format:{self.format or 'source'}", f"quality:{self.quality or 'default'}"]


def read_wanted(texts: Sequence[str], format: str | None, quality: int | None, field: str = "op") -> Wanted:
    """
    Return what the query asks for, or the document, where *field* has the operations.

    Raises:
        Problem: 422 with every operation that cannot be read.
    """
    steps, errors = [], []
    for number, text in enumerate(texts):
        try:
            steps.append((f"{field}[{number}]", read_operation(text)))
        except ValueError as exc:
            errors.append(FieldError(f"{field}[{number}]", str(exc)))
    converts = [(place, step) for place, step in steps if isinstance(step, Convert)]
    # Two formats in one call are a slip of the caller's, whichever of them would win.
    repeated = converts if format is not None or quality is not None else converts[1:]
    errors += [FieldError(place, "the format is given more than once") for place, _ in repeated]
    if errors:
        raise Problem(422, "an operation cannot be read", errors=errors)
    if converts:
        format, quality = converts[0][1].format, converts[0][1].quality
    pixels = [(place, step) for place, step in steps if not isinstance(step, Convert)]
    return Wanted(
        operations=tuple(step for _, step in pixels),
        fields=tuple(place for place, _ in pixels),
        format=None if format is None else _format(format),
        quality=quality,
        operations_count=len(texts),
    )


def read_operation(text: str) -> Operation | Convert:
    """Return the operation that *text* names; ValueError says how it should be written."""
    name, colon, rest = text[:100].partition(":")
    if name not in _READERS:
        raise ValueError(f"must be one of {', '.join(_READERS)}")
    reader, form = _READERS[name]
    try:
        return reader(rest.split(",") if colon else [])
    except (ValueError, IndexError, TypeError) as exc:
        reason = f" ({exc})" if isinstance(exc, _OutOfRangeError) else ""
        raise ValueError(f"must be written as {form}{reason}") from None


class _OutOfRangeError(ValueError):
    """A number that is well formed but too small or too large."""


def _resize(parts: list[str]) -> Resize:
    box, mode = parts if len(parts) == 2 else (*parts, "contain")
    found = re.fullmatch(r"(\d*)x(\d*)", box, re.ASCII)
    if not found or mode not in ("contain", "cover", "fill"):
        raise ValueError
    width, height = (_side(side) if side else None for side in found.groups())
    if (width is None and height is None) or (mode != "contain" and not (width and height)):
        raise ValueError
    return Resize(width, height, cast(Literal["contain", "cover", "fill"], mode))


def _thumbnail(parts: list[str]) -> Thumbnail:
    (box,) = parts
    width, _, height = box.partition("x")
    return Thumbnail(_side(width), _side(height or width))


def _crop(parts: list[str]) -> Crop:
    x, y, width, height = parts
    return Crop(_whole(x, 0, MAX_SIDE * 4), _whole(y, 0, MAX_SIDE * 4), _side(width), _side(height))


def _rotate(parts: list[str]) -> Rotate:
    (degrees,) = parts
    return Rotate(_number(degrees, -360, 360))


def _flip(parts: list[str]) -> Flip:
    (direction,) = parts
    if direction not in ("horizontal", "vertical"):
        raise ValueError
    return Flip(cast(Literal["horizontal", "vertical"], direction))


def _grayscale(parts: list[str]) -> Grayscale:
    if parts:
        raise ValueError
    return Grayscale()


def _blur(parts: list[str]) -> Blur:
    (radius,) = parts
    return Blur(_number(radius, 0.1, MAX_BLUR_RADIUS))


def _sharpen(parts: list[str]) -> Sharpen:
    return Sharpen(*(_whole(percent, 1, 500) for percent in parts))


def _convert(parts: list[str]) -> Convert:
    format, *quality = parts
    return Convert(_format(format), *(_whole(text, 1, 100) for text in quality))


def _format(text: str) -> Format:
    text = "jpeg" if text == "jpg" else text
    if text not in FORMATS:
        raise ValueError
    return text


def _side(text: str) -> int:
    return _whole(text, 1, MAX_SIDE)


def _whole(text: str, low: int, high: int) -> int:
    if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
        raise ValueError
    return int(_within(int(text), low, high))


def _number(text: str, low: float, high: float) -> float:
    if not re.fullmatch(r"-?\d{1,9}(\.\d{1,2})?", text, re.ASCII):
        raise ValueError
    return _within(float(text), low, high)


def _within(value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise _OutOfRangeError(f"{value:g} is not from {low:g} to {high:g}")
    return value


_READERS: dict[str, tuple[Callable[[list[str]], Operation | Convert], str]] = {
    "resize": (_resize, "resize:<width>x<height>[,contain|cover|fill], 800x or x600 for one side alone"),
    "thumbnail": (_thumbnail, "thumbnail:<side> or thumbnail:<width>x<height>"),
    "crop": (_crop, "crop:<x>,<y>,<width>,<height>"),
    "rotate": (_rotate, "rotate:<degrees>"),
    "flip": (_flip, "flip:horizontal or flip:vertical"),
    "grayscale": (_grayscale, "grayscale"),
    "blur": (_blur, "blur:<radius>"),
    "sharpen": (_sharpen, "sharpen or sharpen:<percent>"),
    "convert": (_convert, "convert:<jpeg|png|webp|avif>[,<quality>]"),
}

"""What can be done to an image, each with the size of its result known before any pixel is touched."""

import math
from dataclasses import dataclass
from typing import Literal, Protocol

from PIL import Image, ImageFilter

Size = tuple[int, int]

MAX_SIDE = 16_384
"""Longest side that a parameter may ask for, in pixels."""


class Operation(Protocol):
    """One step; a plan asks every step for its size first, and only then runs them."""

    @property
    def canonical(self) -> str:
        """How it is written when its defaults are spelt out: equal results have equal spellings."""

    def size_after(self, size: Size) -> Size:
        """Return the size of the result for an image of *size*; ValueError says why there is none."""

    def apply(self, image: Image.Image, size: Size) -> Image.Image:
        """Return the image after this step, which has *size*."""


@dataclass(frozen=True, slots=True)
class Resize:
    """Scale into a box: ``contain`` keeps all of the image, ``cover`` fills the box, ``fill`` distorts."""

    width: int | None
    height: int | None
    mode: Literal["contain", "cover", "fill"] = "contain"

    @property
    def canonical(self) -> str:
        return f"resize:{self.width or ''}x{self.height or ''},{self.mode}"

    def size_after(self, size: Size) -> Size:
        if self.mode != "contain" and self.width and self.height:
            return self.width, self.height
        return _scaled(size, min((self.width or math.inf) / size[0], (self.height or math.inf) / size[1]))

    def decode_size(self, size: Size) -> Size:
        """Return the smallest size that an image of *size* may be decoded to before this step."""
        after = self.size_after(size)
        scale = max(after[0] / size[0], after[1] / size[1])
        return after if self.mode == "fill" else (math.ceil(size[0] * scale), math.ceil(size[1] * scale))

    def apply(self, image: Image.Image, size: Size) -> Image.Image:
        box = _centre(image.size, size) if self.mode == "cover" else None
        # The gap lets Pillow shrink by whole factors first, four times as fast and with nothing to be seen of it.
        return image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """Shrink into a box; a smaller image stays as it is."""

    width: int
    height: int

    @property
    def canonical(self) -> str:
        return f"thumbnail:{self.width}x{self.height}"

    def size_after(self, size: Size) -> Size:
        return _scaled(size, min(1.0, self.width / size[0], self.height / size[1]))

    def decode_size(self, size: Size) -> Size:
        """Return the smallest size that an image of *size* may be decoded to before this step."""
        return self.size_after(size)

    def apply(self, image: Image.Image, size: Size) -> Image.Image:
        return image if image.size == size else image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


@dataclass(frozen=True, slots=True)
class Crop:
    """Cut a rectangle out, whose upper left corner is at *x*, *y*."""

    x: int
    y: int
    width: int
    height: int

    @property
    def canonical(self) -> str:
        return f"crop:{self.x},{self.y},{self.width},{self.height}"

    def size_after(self, size: Size) -> Size:
        if self.x + self.width > size[0] or self.y + self.height > size[1]:
            raise ValueError(f"reaches outside the image, which is {size[0]}x{size[1]} at this step")
        return self.width, self.height

    def apply(self, image: Image.Image, size: Size) -> Image.Image:
        return image.crop((self.x, self.y, self.x + self.width, self.y + self.height))


@dataclass(frozen=True, slots=True)
class Rotate:
    """Turn clockwise; the image grows so that nothing is cut off, and corners that appear are transparent."""

    degrees: float

    @property
    def canonical(self) -> str:
        return f"rotate:{self.degrees % 360:g}"

    def size_after(self, size: Size) -> Size:
        sine, cosine = self._sine_and_cosine()
        width, height = size[0] * abs(cosine) + size[1] * abs(sine), size[0] * abs(sine) + size[1] * abs(cosine)
        # What is a whole number but for the last bits of a float must not grow by a pixel.
        return math.ceil(round(width, 6)), math.ceil(round(height, 6))

    def apply(self, image: Image.Image, size: Size) -> Image.Image:
        turns = {0: None, 90: "ROTATE_270", 180: "ROTATE_180", 270: "ROTATE_90"}
        if self.degrees % 360 not in turns:
            return self._turned(image, size)
        turn = turns[int(self.degrees % 360)]
        return image.transpose(Image.Transpose[turn]) if turn else image

    def _turned(self, image: Image.Image, size: Size) -> Image.Image:
        sine, cosine = self._sine_and_cosine()
        middle, new_middle = (image.width / 2, image.height / 2), (size[0] / 2, size[1] / 2)
        left = middle[0] - cosine * new_middle[0] - sine * new_middle[1]
        top = middle[1] + sine * new_middle[0] - cosine * new_middle[1]
        mode = "LA" if image.mode in ("L", "LA") else "RGBA"
        matrix = (cosine, sine, left, -sine, cosine, top)
        return image.convert(mode).transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)

    def _sine_and_cosine(self) -> tuple[float, float]:
        angle = math.radians(self.degrees)
        return math.sin(angle), math.cos(angle)


@dataclass(frozen=True, slots=True)
class Flip:
    """Mirror: ``horizontal`` swaps left and right, ``vertical`` top and bottom."""

    direction: Literal["horizontal", "vertical"]

    @property
    def canonical(self) -> str:
        return f"flip:{self.direction}"

    def size_after(self, size: Size) -> Size:
        return size

    def apply(self, image: Image.Image, size: Size) -> Image.Image:
        sides = Image.Transpose.FLIP_LEFT_RIGHT if self.direction == "horizontal" else Image.Transpose.FLIP_TOP_BOTTOM
        return image.transpose(sides)


@dataclass(frozen=True, slots=True)
class Grayscale:
    """Take the colours away."""

    canonical = "grayscale"

    def size_after(self, size: Size) -> Size:
        return size

    def apply(self, image: Image.Image, size: Size) -> Image.Image:
        return image.convert("LA" if image.mode in ("LA", "RGBA") else "L")


@dataclass(frozen=True, slots=True)
class Blur:
    """Blur by a Gaussian of *radius* pixels."""

    radius: float

    @property
    def canonical(self) -> str:
        return f"blur:{self.radius:g}"

    def size_after(self, size: Size) -> Size:
        return size

    def apply(self, image: Image.Image, size: Size) -> Image.Image:
        return _filtered(image, ImageFilter.GaussianBlur(self.radius))


@dataclass(frozen=True, slots=True)
class Sharpen:
    """Sharpen edges by *percent* of what a blurred copy differs."""

    percent: int = 150

    @property
    def canonical(self) -> str:
        return f"sharpen:{self.percent}"

    def size_after(self, size: Size) -> Size:
        return size

    def apply(self, image: Image.Image, size: Size) -> Image.Image:
        return _filtered(image, ImageFilter.UnsharpMask(2, self.percent, 3))


def _scaled(size: Size, scale: float) -> Size:
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _centre(size: Size, after: Size) -> tuple[float, float, float, float]:
    """Return the largest box in the middle of *size* that has the proportions of *after*."""
    scale = min(size[0] / after[0], size[1] / after[1])
    width, height = after[0] * scale, after[1] * scale
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return left, top, min(left + width, size[0]), min(top + height, size[1])


def _filtered(image: Image.Image, effect: ImageFilter.Filter) -> Image.Image:
    if image.mode not in ("LA", "RGBA"):
        return image.filter(effect)
    # Weighted by alpha, else what is transparent bleeds its hidden colour into what is not.
    weighted = image.convert("La" if image.mode == "LA" else "RGBa")
    return weighted.filter(effect).convert(image.mode)

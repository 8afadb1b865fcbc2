"""Look at an upload before anything of it is decoded: what it is, how large, and which way up."""

import warnings
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, UnidentifiedImageError

from faasbase import FieldError, Problem

from .operations import Size

READ_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF")
"""Pillow knows forty more: old ones, whose decoders nobody attacks but strangers with a file."""

_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)


@dataclass(frozen=True, slots=True)
class Source:
    """What an upload's header says."""

    format: str
    stored_size: Size
    orientation: int
    """EXIF's: 1 is upright; see `TURNS`."""

    @property
    def size(self) -> Size:
        """Width and height as the image is meant to be seen."""
        return turned(self.stored_size, self.orientation)

    @property
    def memory_pixels(self) -> int:
        """Pixels that it takes to decode; WebP's decoder keeps two canvases beside the image."""
        return self.stored_size[0] * self.stored_size[1] * (2 if self.format == "webp" else 1)


def turned(size: Size, orientation: int) -> Size:
    """Return *size* as seen after *orientation* is applied; the same the other way round."""
    return (size[1], size[0]) if orientation in _SIDEWAYS else size


def use_pixel_limit(max_pixels: int) -> None:
    """Make Pillow's own guard agree with ours; it also looks at sizes that a file reveals only while it is read."""
    Image.MAX_IMAGE_PIXELS = max_pixels
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def look_at(upload: BytesIO, max_pixels: int) -> Source:
    """
    Return what the header of *upload* says.

    Raises:
        Problem: 415 if it is no image of a known kind, 413 if it has more than *max_pixels*, 422 if it is damaged.
    """
    with open_image(upload, max_pixels) as image:
        if image.width * image.height > max_pixels:
            raise too_large(max_pixels)
        format = "jpeg" if image.format == "MPO" else str(image.format).lower()
        return Source(format, image.size, _orientation(image))


def open_image(upload: BytesIO, max_pixels: int) -> Image.Image:
    """Open *upload* without decoding it; raises as `look_at` does."""
    upload.seek(0)
    try:
        return Image.open(upload, formats=READ_FORMATS)
    except UnidentifiedImageError:
        accepted = ", ".join(READ_FORMATS)
        raise Problem(415, f"this is not an image that can be read ({accepted})") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning, MemoryError):
        raise too_large(max_pixels) from None
    except Exception as exc:
        raise damaged() from exc


def too_large(max_pixels: int) -> Problem:
    return Problem(413, f"the image has more than {max_pixels // 1_000_000} megapixels")


def damaged() -> Problem:
    return Problem(422, "the image is damaged", errors=[FieldError("body", "is cut short or cannot be decoded")])


def _orientation(image: Image.Image) -> int:
    # Not `image.getexif()`, which decodes a whole PNG to see whether more comes behind its pixels.
    exif = Image.Exif()
    try:
        exif.load(image.info.get("exif", b""))
        found = exif.get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - broken metadata must not keep a good image from being used
        return 1
    return found if found in range(1, 9) else 1

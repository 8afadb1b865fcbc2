"""Image files of every kind that the image-processor must know, made here."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

from PIL import Image, ImageCms

Colour = tuple[int, ...]

RED, BLUE, WHITE = (255, 0, 0), (0, 0, 255), (255, 255, 255)


def photo(width: int = 400, height: int = 300) -> Image.Image:
    """Return something with the detail of a photograph."""
    channels = [Image.radial_gradient("L"), Image.linear_gradient("L"), Image.effect_noise((256, 256), 60)]
    return Image.merge("RGB", [channel.resize((width, height)) for channel in channels])


def halves(width: int = 40, height: int = 30, *, mode: str = "RGB") -> Image.Image:
    """Return a picture that is red on the left and blue on the right."""
    image = Image.new("RGB", (width, height), BLUE)
    image.paste(RED, (0, 0, width // 2, height))
    return image.convert(mode)


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    """Return *image* as a file of *format*."""
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def opened(data: bytes) -> Image.Image:
    """Return the decoded image in *data*."""
    image = Image.open(BytesIO(data))
    image.load()
    return image


def with_orientation(orientation: int) -> bytes:
    """Return a JPEG of `halves` that its EXIF says how to turn, so that all of these look the same."""
    back = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "canary-description"
    image = halves(400, 300)
    stored = image.transpose(back[orientation]) if orientation in back else image
    return encoded(stored, "JPEG", exif=exif.tobytes(), quality=95)


def swapped_profile() -> bytes:
    """Return an ICC profile in which red means blue and blue means red."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    for number in range(struct.unpack_from(">I", profile, 128)[0]):
        entry = 132 + 12 * number
        name = bytes(profile[entry : entry + 4])
        profile[entry : entry + 4] = {b"rXYZ": b"bXYZ", b"bXYZ": b"rXYZ"}.get(name, name)
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


def animation(format: str) -> bytes:
    """Return a red frame and then a blue one."""
    frames = [Image.new("RGB", (20, 20), colour) for colour in (RED, BLUE)]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=100)


def sixteen_bit_grey(value: int) -> bytes:
    """Return a PNG of 16 bits a pixel, all of *value*."""
    return encoded(Image.new("I;16", (10, 10), value), "PNG")


def png_bomb(width: int, height: int, *, zeros: int = 1000) -> bytes:
    """Return a PNG that says in a few bytes that it is *width* times *height*, and holds *zeros*."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(zeros), 9)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def png_with_text_bomb() -> bytes:
    """Return a small PNG whose comments unpack to 200 MB."""
    plain = encoded(halves(), "PNG")
    text = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"\0" * 50_000_000, 9))
    return plain[:33] + text * 4 + plain[33:]


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

"""One image file to one upright RGB picture, whatever kind of file it is.

What the formats hold beyond RGB is turned into RGB like this, the same on every machine:

- EXIF orientation is applied. (torchvision's ImageFolder ignores it; few ImageNet files carry one.)
- Transparency is laid over white: what a cut-out looks like on a page. (Dropping alpha would show the colors hidden
  under it.)
- 16-bit gray is divided by 257, so that 65535 becomes 255. 32-bit gray is divided by the smallest of 255, 65535 and its
  own maximum that holds every value, floats by 1 too; with negative values its own range is stretched. Nothing is
  clipped.
- An animation or a multi-page file is its first picture. CMYK goes through Pillow's plain conversion, without profiles.

A file of a few hundred kilobytes may hold 180 million pixels, 0.7 GB per copy. More than Pillow calls safe (89 million)
is therefore refused, and images above `LARGE_PIXELS` are decoded one at a time, in all threads and processes of the
user on this machine, and converted in bands.
"""

from __future__ import annotations

import functools
import io
import math
import os
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from filelock import FileLock
from PIL import Image, UnidentifiedImageError

from ssl_bench.errors import UserError

EXTENSIONS = (
    ".apng", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".tif",
    ".tiff", ".webp",
)  # fmt: skip
"""Endings, in lower case, of the files that count as images: all that Pillow knows for `FORMATS`."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What a file may hold, whatever its ending says; nothing that starts another program (EPS) is among them."""

LARGE_PIXELS = 1 << 24
"""Larger images (16.8 million pixels) are decoded one at a time and converted in bands of this many pixels."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTATION = 0x0112

# Refused here, with the file's name, where Pillow only warns
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning, module=r"PIL\.Image")
# A garbled EXIF block is common in photos from the web (ImageNet has dozens) and says nothing about the pixels.
warnings.filterwarnings("ignore", message=r"(Possibly corrupt|Corrupt) EXIF data", module=r"PIL\.TiffImagePlugin")


def read_image(path: str | os.PathLike[str], at_least_px: int | None = None) -> Image.Image:
    """The picture in `path` as mode "RGB", upright.

    `at_least_px` lets a JPEG be decoded at 1/2, 1/4 or 1/8 of its size as long as both sides keep that many pixels:
    several times faster for large photos, nothing for those smaller than twice that. None decodes exactly.
    Raises `UserError` naming the file when it is missing, truncated, too large or no image.
    """
    try:
        with open(path, "rb") as file:
            return _picture(file, at_least_px)
    except (MemoryError, UserError):
        raise
    except Exception as error:  # decoders raise whatever they stumble on: OSError, SyntaxError, struct.error, ...
        raise UserError(_unreadable(shown(path), error, lambda: os.stat(path).st_size)) from error


def decode_image(content: bytes, name: str, at_least_px: int | None = None) -> Image.Image:
    """`read_image` of the bytes of a file that lies in a container; `name` is what errors call it."""
    try:
        return _picture(io.BytesIO(content), at_least_px)
    except (MemoryError, UserError):
        raise
    except Exception as error:
        raise UserError(_unreadable(name, error, lambda: len(content))) from error


def _picture(file: BinaryIO, at_least_px: int | None) -> Image.Image:
    image = Image.open(file, formats=FORMATS)
    if at_least_px is not None:
        image.draft(None, (at_least_px, at_least_px))
    _refuse_bomb(image.size)
    with _one_large_image_at_a_time(image.width * image.height):
        image.load()
        turn = _turn(image)
        picture = _rgb(image)
        del image
        return picture if turn is None else picture.transpose(turn)


def header_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(width, height) in pixels as the file's header says. Raises `UserError` as `read_image` does."""
    try:
        with open(path, "rb") as file:
            return Image.open(file, formats=FORMATS).size
    except Exception as error:
        raise UserError(_unreadable(shown(path), error, lambda: os.stat(path).st_size)) from error


def decoded_size(content: bytes, name: str) -> tuple[int, int]:
    """`header_size` of the bytes of a file that lies in a container."""
    try:
        return Image.open(io.BytesIO(content), formats=FORMATS).size
    except Exception as error:
        raise UserError(_unreadable(name, error, lambda: len(content))) from error


def holds_an_image(path: str | os.PathLike[str]) -> bool:
    """Whether the content of a file is an image of `FORMATS`, whatever its name; True where it must not be read.

    The latter so that a file without permission is named later rather than left out.
    """
    try:
        header_size(path)
    except UserError as error:
        return isinstance(error.__cause__, PermissionError)
    return True


def _refuse_bomb(size: tuple[int, int]) -> None:
    if size[0] * size[1] > (Image.MAX_IMAGE_PIXELS or math.inf):
        raise Image.DecompressionBombError(f"{size[0]:,} x {size[1]:,} px")


@contextmanager
def _one_large_image_at_a_time(pixels: int) -> Iterator[None]:
    """Hold this user's lock for large images while one of `pixels` is decoded; nothing for the usual ones."""
    if pixels <= LARGE_PIXELS:
        yield
        return
    user = f"-{os.getuid()}" if hasattr(os, "getuid") else ""
    lock = FileLock(Path(tempfile.gettempdir()) / f"sslbench-large-image{user}.lock")
    with _LARGE:
        try:
            lock.acquire()
        except OSError:  # no temporary folder to write to: other processes are not waited for
            yield
            return
        try:
            yield
        finally:
            lock.release()


_LARGE = threading.Lock()


def shown(path: str | os.PathLike[str]) -> str:
    """A path as a user would type it: from the current folder or from ~ where it lies below one, else absolute."""
    given = os.path.abspath(path)
    if given == os.path.expanduser("~"):
        return "~"
    for base, prefix in ((os.getcwd(), ""), (os.path.expanduser("~"), "~/")):
        if given.startswith(base.rstrip("/") + "/") and base != "/":
            given = prefix + given[len(base) + 1 :]
            break
    # a name that is not UTF-8 must not break the printing of the error that names it
    return os.fsencode(given).decode("utf-8", "backslashreplace")


def _unreadable(name: str, error: Exception, size: Callable[[], int]) -> str:
    if isinstance(error, PermissionError):
        return f"cannot read {name}: no permission. Give yourself the right to read it (chmod u+r)."
    if isinstance(error, FileNotFoundError):
        return f"cannot read {name}: it is not there (any more). Put it back, or start again without it."
    if isinstance(error, UnidentifiedImageError):
        empty = size() == 0
        reason = "it is empty (0 bytes)" if empty else f"it holds no image of a known kind ({', '.join(FORMATS)})"
    elif isinstance(error, Image.DecompressionBombError):
        return (
            f"cannot read {name}: it has more than the {Image.MAX_IMAGE_PIXELS or 0:,} pixels that are safe to decode. "
            "Shrink it or move it away; large JPEGs can be decoded smaller with --set data.decode_px=512."
        )
    elif isinstance(error, OSError) and error.errno is not None:  # the disk or the network, not the file's content
        return f"cannot read {name}: {error.strerror}."
    else:
        reason = f"it is damaged ({error or type(error).__name__})"
    return f"cannot read {name}: {reason}. Remove or replace it."


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    convert = _eight_bits(image) if image.mode.startswith("I") or image.mode == "F" else _plain_rgb
    rows = max(1, LARGE_PIXELS // image.width)
    if rows >= image.height:
        return convert(image)
    whole = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(top + rows, image.height)))
        whole.paste(convert(band), (0, top))
    return whole


def _plain_rgb(image: Image.Image) -> Image.Image:
    """Eight bits per channel or fewer; transparency is laid over white."""
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image.convert("RGBA"))
        return page.convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """The function from `image`, or a band of it, of 16 or 32 bits a pixel to RGB. Raises ValueError for NaN."""
    sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))  # Pillow 10
    if sixteen_bits:
        return _from_sixteen_bits
    low, high = (float(bound(np.asarray(image))) for bound in (np.min, np.max))  # both NaN where any pixel is
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("pixels that are not numbers")
    low = min(0.0, low)
    ranges = ([1.0] if image.mode == "F" else []) + [255.0, 65535.0] if low == 0 else []
    top = next((top for top in ranges if high <= top), high)
    return functools.partial(_stretched, low, 255.0 / ((top - low) or 1.0))


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    levels = ((np.asarray(image).astype(np.uint32) + 128) // 257).astype(np.uint8)
    return Image.fromarray(levels).convert("RGB")


def _stretched(low: float, factor: float, image: Image.Image) -> Image.Image:
    levels = np.rint((np.asarray(image).astype(np.float64) - low) * factor).astype(np.uint8)
    return Image.fromarray(levels).convert("RGB")


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes a loaded image upright: as `ImageOps.exif_transpose`, for any EXIF block and without a copy."""
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a garbled EXIF block on sound pixels: as if there were none
        return None

"""One image file to one upright RGB picture, whatever kind of file it is.

What the formats hold beyond RGB is turned into RGB like this, the same on every machine:

- EXIF orientation is applied. (torchvision's ImageFolder ignores it; few ImageNet files carry one.)
- Transparency is laid over white: what a cut-out looks like on a page. (Dropping alpha would show the colours hidden
  under it.)
- 16-bit grey is divided by 257, so that 65535 becomes 255. 32-bit grey is divided by the smallest of 255, 65535 and its
  own maximum that holds every value, floats by 1 too; with negative values its own range is stretched. Nothing is
  clipped.
- An animation or a multi-page file is its first picture. CMYK goes through Pillow's plain conversion, without profiles.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from ssl_bench.errors import UserError

EXTENSIONS = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Endings, in lower case, of the files that count as images."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What a file may hold, whatever its ending says; nothing that starts another program (EPS) is among them."""

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
            image = Image.open(file, formats=FORMATS)
            if at_least_px is not None:
                image.draft(None, (at_least_px, at_least_px))
            image.load()
            turn = _turn(image)
            picture = _rgb(image)
            return picture if turn is None else picture.transpose(turn)
    except (MemoryError, UserError):
        raise
    except Exception as error:  # decoders raise whatever they stumble on: OSError, SyntaxError, struct.error, ...
        raise UserError(_unreadable(path, error)) from error


def header_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """(width, height) in pixels as the file's header says. Raises `UserError` as `read_image` does."""
    try:
        with open(path, "rb") as file:
            return Image.open(file, formats=FORMATS).size
    except Exception as error:
        raise UserError(_unreadable(path, error)) from error


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


def _unreadable(path: str | os.PathLike[str], error: Exception) -> str:
    name = shown(path)
    if isinstance(error, PermissionError):
        return f"cannot read {name}: no permission. Give yourself the right to read it (chmod u+r)."
    if isinstance(error, FileNotFoundError):
        return f"cannot read {name}: it is not there (any more). Put it back, or start again without it."
    if isinstance(error, UnidentifiedImageError):
        empty = Path(path).stat().st_size == 0
        reason = "it is empty (0 bytes)" if empty else f"it holds no image of a known kind ({', '.join(FORMATS)})"
    elif isinstance(error, Image.DecompressionBombError):
        reason = f"it has more pixels than the {2 * (Image.MAX_IMAGE_PIXELS or 0):,} that are safe to decode"
        return f"cannot read {name}: {reason}. Shrink or remove it."
    elif isinstance(error, OSError) and error.errno is not None:  # the disk or the network, not the file's content
        return f"cannot read {name}: {error.strerror}."
    else:
        reason = f"it is damaged ({error or type(error).__name__})"
    return f"cannot read {name}: {reason}. Remove or replace it."


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        page = Image.new("RGBA", image.size, "white")
        page.alpha_composite(image.convert("RGBA"))
        return page.convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image) -> np.ndarray:
    values = np.asarray(image)
    sixteen_bits = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))  # Pillow 10
    if sixteen_bits:
        return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if not np.isfinite(values).all():
        raise ValueError("pixels that are not numbers")
    low, high = min(0.0, float(values.min())), float(values.max())
    ranges = ([1.0] if image.mode == "F" else []) + [255.0, 65535.0] if low == 0 else []
    top = next((top for top in ranges if high <= top), high)
    return np.rint((values.astype(np.float64) - low) * (255.0 / ((top - low) or 1.0))).astype(np.uint8)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What makes a loaded image upright: as `ImageOps.exif_transpose`, for any EXIF block and without a copy."""
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # a garbled EXIF block on sound pixels: as if there were none
        return None

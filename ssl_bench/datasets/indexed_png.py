"""Masks as indexed PNG, as VOC 2012 and DAVIS 2017 store them: a pixel's value is its class or object, not a color."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ssl_bench.datasets.reading import shown
from ssl_bench.errors import UserError
from ssl_bench.system.files import write_atomically

VOID = 255
"""VOC's label for pixels that are not scored."""

Mask = NDArray[np.uint8]
"""(height, width): 0 background, 1.. class or object, 255 void in VOC."""


def _palette() -> NDArray[np.uint8]:
    """Color k takes bits 0, 3, 6, .. of k for red, 1, 4, 7, .. for green, 2, 5, .. for blue, each from the top down.

    VOCcode/VOClabelcolormap.m of the VOC 2012 development kit; DAVIS uses the same colors.
    """
    colors = np.zeros((256, 3), np.uint8)
    for value in range(256):
        for bit in range(8):
            colors[value, bit % 3] |= (value >> bit & 1) << 7 - bit // 3
    return colors


PALETTE = _palette()
"""(256, 3) red, green, blue of each value: 0 black, 1 dark red, 2 dark green, .. 255 cream."""


def write_mask(path: Path, mask: Mask) -> None:
    """Write a mask so that other tools read the same values, atomically. Raises `UserError` where it cannot."""
    assert mask.dtype == np.uint8, mask.dtype  # Pillow would split wider numbers
    image = Image.fromarray(mask, mode="P")
    image.putpalette(PALETTE.tobytes())
    content = io.BytesIO()
    image.save(content, format="PNG")
    write_atomically(path, content.getvalue())


def read_mask(path: Path) -> Mask:
    """The values of an indexed or gray PNG. Raises `UserError` naming the file for anything else."""
    try:
        with Image.open(path, formats=("PNG",)) as image:
            if image.mode.startswith("I"):
                raise UserError(
                    f"{shown(path)} has 16 bits per pixel, not 8: an indexed PNG has {len(PALETTE)} values, and 255 is "
                    "void, so that a mask shows at most 254 classes or objects. Save it with a palette (PIL mode P)."
                )
            if image.mode not in ("P", "L", "1"):
                raise UserError(
                    f"{shown(path)} is {image.mode}, not an indexed PNG: a mask holds the number of the class or "
                    "object in each pixel, not its color. Save it with a palette (PIL mode P)."
                )
            return np.array(image, dtype=np.uint8)
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{shown(path)} is missing: every frame or image that is scored needs its mask.") from None
    except UnidentifiedImageError:
        reason = "it is not a PNG" if path.stat().st_size else "it is empty (0 bytes)"
        raise UserError(f"cannot read the mask {shown(path)}: {reason}. Replace it.") from None
    except Exception as error:  # Pillow raises many kinds for a damaged file
        raise UserError(f"cannot read the mask {shown(path)}: {error}. Replace it.") from None

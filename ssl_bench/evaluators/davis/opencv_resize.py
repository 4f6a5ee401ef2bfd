"""OpenCV's bilinear resize of 8-bit images without OpenCV, to the last bit: it feeds the released DAVIS protocol.

cv2.resize(image, (width, height)) with its default INTER_LINEAR. Output pixel i reads at (i + 0.5) * (in / out) - 0.5
between two input pixels, edges repeated, and *without* antialiasing, however small the output: not what Pillow or
torchvision do. The two weights are rounded to 1/2048, rows are interpolated first, and columns in fixed point with the
roundings of modules/imgproc/src/resize.cpp (HResizeLinear, VResizeLinear for uchar), which the code below repeats.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Integers = NDArray[np.int32]

UNIT = 2048
"""A weight of 1 (INTER_RESIZE_COEF_SCALE)."""


def resize_bilinear(image: Bytes, height: int, width: int) -> Bytes:
    """(rows, columns, channels) -> (height, width, channels), each value as cv2.resize gives it."""
    left, right, of_left, of_right = _taps(image.shape[1], width, split_edges=False)
    upper, lower, of_upper, of_lower = _taps(image.shape[0], height, split_edges=True)
    pixels = image.astype(np.int32)
    wide = (pixels[:, left] * of_left[:, None] + pixels[:, right] * of_right[:, None]) >> 4
    above = (wide[upper] * of_upper[:, None, None]) >> 16
    below = (wide[lower] * of_lower[:, None, None]) >> 16
    return ((above + below + 2) >> 2).astype(np.uint8)


def _taps(before: int, after: int, *, split_edges: bool) -> tuple[Integers, Integers, Integers, Integers]:
    """For each of `after` pixels: the two of `before` pixels that it lies between, and their weights.

    Beyond the first and last pixel both are the same one. OpenCV gives it all the weight along a row, but splits the
    weight along a column, which rounds differently.
    """
    place = ((np.arange(after) + 0.5) * (1 / (after / before)) - 0.5).astype(np.float32)
    first = np.floor(place).astype(np.int32)
    part = place - first.astype(np.float32)
    if not split_edges:
        part[(first < 0) | (first >= before - 1)] = 0
    weights = [np.rint(share * np.float32(UNIT)).astype(np.int32) for share in (np.float32(1) - part, part)]
    return first.clip(0, before - 1), (first + 1).clip(0, before - 1), weights[0], weights[1]

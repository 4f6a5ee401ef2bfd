"""F of DAVIS: how well the outlines of two masks agree, up to a distance of 0.8 % of the image's diagonal.

Perazzi et al. 2016 (DAVIS), section 5, as the released scorer davis2017-evaluation computes it (metrics.py): outlines
one pixel wide, matched where they lie within a disk. A disk is a stack of runs, so that dilating by it takes one OR
for each of its rows and one for each end of a run, over the box around both masks instead of the whole frame.
"""

from __future__ import annotations

from math import ceil, hypot, isqrt

import numpy as np
from numpy.typing import NDArray

Binary = NDArray[np.bool_]
"""(height, width): where one object is."""

BOUND = 0.008
"""Tolerated distance as a share of the diagonal."""


def bound_px(height: int, width: int) -> int:
    """Radius in px of the disk within which outlines match: 8 for 480 x 854."""
    return ceil(BOUND * hypot(height, width))


def boundary(mask: Binary) -> Binary:
    """(height, width): pixels that differ from the one to their right, below, or below right, within the image."""
    right_below = np.pad(mask, (0, 1), mode="edge")
    pixel, right, below, both = right_below[:-1, :-1], right_below[:-1, 1:], right_below[1:, :-1], right_below[1:, 1:]
    return (pixel ^ right) | (pixel ^ below) | (pixel ^ both)


def dilate(points: Binary, radius_px: int) -> Binary:
    """(height, width): pixels at most `radius_px` from one of `points`, center to center."""
    height, width = points.shape
    stride = width + radius_px  # rows laid end to end, so far apart that no run reaches into the next
    start = radius_px * (stride + 1)
    run = np.zeros((height + 2 * radius_px) * stride + 2 * radius_px, np.bool_)
    run[start:][: height * stride].reshape(height, stride)[:, :width] = points
    source, end = run.copy(), start + height * stride
    found = np.zeros(height * stride, np.bool_)
    reach = 0
    for row in range(radius_px, -1, -1):  # from the disk's short rows to its longest one
        longer = range(reach + 1, isqrt(radius_px**2 - row**2) + 1)
        for reach in longer:
            run[radius_px:-radius_px] |= source[radius_px - reach : -radius_px - reach]
            run[radius_px:-radius_px] |= source[radius_px + reach : source.size - radius_px + reach]
        for offset in {-row * stride, row * stride}:
            found |= run[start + offset : end + offset]
    return found.reshape(height, stride)[:, :width]


def boundary_f(truth: Binary, result: Binary, radius_px: int) -> float:
    """F of one object in one frame; 1 where neither mask has an outline, 0 where only one has."""
    of_truth, of_result = boundary(truth), boundary(result)
    truth_px, result_px = np.count_nonzero(of_truth), np.count_nonzero(of_result)
    if not truth_px or not result_px:
        return float(truth_px == result_px)
    precision = np.count_nonzero(of_result & dilate(of_truth, radius_px)) / result_px
    recall = np.count_nonzero(of_truth & dilate(of_result, radius_px)) / truth_px
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

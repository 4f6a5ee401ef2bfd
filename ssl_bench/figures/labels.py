"""Where direct labels stand: as near as possible to what they name, and never on each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean


def spread_out(wanted: Sequence[float], heights: Sequence[float], low: float = 0.0, high: float = 1.0) -> list[float]:
    """Middles of labels of these heights that touch nowhere, with the least sum of squared moves from `wanted`.

    Their order is that of `wanted`. They are kept between `low` and `high` where there is room for all. Neighbors that
    would overlap form a block that stands around the mean of what its members want (pool adjacent violators).
    """
    order = sorted(range(len(wanted)), key=lambda index: wanted[index])
    offsets = [0.0]
    for one, other in pairwise(order):
        offsets.append(offsets[-1] + (heights[one] + heights[other]) / 2)
    blocks: list[list[float]] = []
    for index, offset in zip(order, offsets, strict=False):
        blocks.append([wanted[index] - offset])
        while len(blocks) > 1 and fmean(blocks[-2]) >= fmean(blocks[-1]):
            blocks[-1] = blocks.pop(-2) + blocks[-1]
    shifts = [fmean(block) for block in blocks for _ in block]
    positions = [0.0] * len(wanted)
    for index, offset, shift in zip(order, offsets, shifts, strict=False):
        positions[index] = max(low, min(high - offsets[-1], shift)) + offset
    return positions

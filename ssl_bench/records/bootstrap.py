"""95 % intervals by bootstrap over test items, and over seeds where there are several.

Test items: they are drawn again with replacement, 10,000 times, and the ends are the 2.5th and 97.5th percentile (Efron
and Tibshirani 1993, chapter 13). All seeds saw the same items, so an item is drawn with its outcomes under every seed;
items of one cluster, e.g. the objects of one video, are drawn together.

Seeds: two or three of them cannot be drawn again, since a percentile of so few values is far too narrow. Their part is
Student's t with as many degrees of freedom as the seeds leave, around their mean; of two rows, with a pooled variance
(the two-sample t test). Both parts are added, draw by draw. With one seed each the interval is of test items only.

The draws are the same in every call, so a table made again is the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from ssl_bench.measurement import Outcomes

DRAWS = 10_000
LEVEL = 0.95
FEW_VALUES = 64
"""Up to so many different scores, e.g. of right and wrong, their counts are drawn instead of the items."""
CELLS_AT_ONCE = 1 << 22
"""Drawn items that are in memory at once: 64 MiB."""

Floats = NDArray[np.float64]


def mean_interval(seeds: Sequence[Outcomes]) -> tuple[float, float]:
    """Ends of the interval of the mean over items and seeds, in the measurement's unit; one entry a seed.

    Raises `ValueError` where the entries are not of the same items.
    """
    items, clusters = _averaged(seeds)
    draws = _resampled_means(items, clusters)
    if len(seeds) > 1:
        values = [float(one.in_unit.mean()) for one in seeds]
        draws = draws + _student(len(seeds) - 1) * math.sqrt(_pooled_variance([values]) / len(seeds))
    return _ends(draws)


def paired_interval(one: Sequence[Outcomes], other: Sequence[Outcomes]) -> tuple[float, float]:
    """Ends of the interval of the mean of `other` minus that of `one` on the same items; one entry a seed.

    Luck with the items that both share cancels out. Raises `ValueError` where the entries are not of the same items.
    """
    before, clusters = _averaged(one)
    after, others = _averaged(other)
    if len(before) != len(after) or not _same(clusters, others):
        raise ValueError("outcomes of different test items cannot be paired")
    change, turned = after - before, 1.0
    if (float(change.mean()), float(change[np.flatnonzero(change)[:1]].sum())) < (0.0, 0.0):
        change, turned = -change, -1.0  # so that the interval of the opposite difference is this one's mirror image
    draws = _resampled_means(change, clusters)
    freedom = len(one) + len(other) - 2
    if freedom:
        values = [[float(seed.in_unit.mean()) for seed in row] for row in (one, other)]
        draws = draws + _student(freedom) * math.sqrt(_pooled_variance(values) * (1 / len(one) + 1 / len(other)))
    return _ends(turned * draws)


def seeds_interval(values: Sequence[float], ends: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Ends of the interval of the mean of several seeds whose outcomes are not known, from their values and intervals.

    What the items could have moved is the mean reach of the intervals, as if luck with them were the same for all
    seeds; Student's t interval over seeds is added in quadrature.
    """
    mean, seeds = fmean(values), 0.0
    if len(values) > 1:
        seeds = _quantile(len(values) - 1) * math.sqrt(_pooled_variance([values]) / len(values))
    below = fmean(value - low for value, (low, _) in zip(values, ends, strict=True))
    above = fmean(high - value for value, (_, high) in zip(values, ends, strict=True))
    return mean - math.hypot(below, seeds), mean + math.hypot(above, seeds)


def _averaged(seeds: Sequence[Outcomes]) -> tuple[Floats, NDArray[np.int32] | None]:
    """(n,) the mean of every item over the seeds, and the clusters."""
    first = seeds[0]
    if any(len(one.values) != len(first.values) or not _same(one.clusters, first.clusters) for one in seeds):
        raise ValueError("outcomes of different test items cannot be averaged")
    total = np.zeros(len(first.values))
    for one in seeds:
        total += one.in_unit
    return total / len(seeds), first.clusters


def _same(one: NDArray[np.int32] | None, other: NDArray[np.int32] | None) -> bool:
    return one is other if one is None or other is None else np.array_equal(one, other)


def _resampled_means(items: Floats, clusters: NDArray[np.int32] | None) -> Floats:
    """(DRAWS,) means of as many items, or clusters, drawn with replacement."""
    generator = np.random.default_rng(0)
    if clusters is None:
        values, counts = np.unique(items, return_counts=True)
        if len(values) <= FEW_VALUES:
            drawn = generator.multinomial(len(items), counts / len(items), size=DRAWS)
            means: Floats = drawn @ values / len(items)
            return means
        return _means_of_drawn(generator, items, np.ones(len(items)))
    _, numbers = np.unique(clusters, return_inverse=True)
    sizes: Floats = np.bincount(numbers).astype(np.float64)
    sums: Floats = np.bincount(numbers, weights=items).astype(np.float64)
    return _means_of_drawn(generator, sums, sizes)


def _means_of_drawn(generator: np.random.Generator, sums: Floats, sizes: Floats) -> Floats:
    """(DRAWS,) means over the items of as many clusters as there are, drawn by their sums and sizes."""
    parts = []
    rows = max(1, CELLS_AT_ONCE // len(sums))
    for begin in range(0, DRAWS, rows):
        drawn = generator.integers(len(sums), size=(min(rows, DRAWS - begin), len(sums)))
        parts.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    return np.concatenate(parts)


@cache
def _student(freedom: int) -> Floats:
    """(DRAWS,) of Student's t, in random order: its quantiles in equal steps, so that the ends have no noise."""
    from scipy.special import stdtrit

    steps = (np.arange(DRAWS) + 0.5) / DRAWS
    drawn: Floats = np.random.default_rng(1).permutation(stdtrit(freedom, steps))
    return drawn


@cache
def _quantile(freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + LEVEL) / 2))


def _pooled_variance(rows: Sequence[Sequence[float]]) -> float:
    """Of one seed, from rows of values that have a mean of their own each."""
    squares = sum((value - fmean(row)) ** 2 for row in rows for value in row)
    return squares / sum(len(row) - 1 for row in rows)


def _ends(draws: Floats) -> tuple[float, float]:
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)

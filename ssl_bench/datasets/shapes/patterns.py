"""The ten forms and the ten textures of `shapes`, as numpy functions of continuous coordinates in an object's frame.

`x` and `y` (pointing down) are coordinates in which a form has a radius of about 1, `r` and `a` their polar pair.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
"""float32 throughout; numpy's stubs widen a product with a Python float to float64, hence the wider name."""
Pattern = tuple[Floats, NDArray[np.int32]]
"""Tone in [0, 1] from ink to paper, and the number of the element in [0, COLORS)."""

COLORS = 8
"""Colors an object's elements take turns in: a power of two."""

# Forms: about a signed distance to the outline, negative inside.


def _egg(x: Floats, y: Floats, r: Floats, a: Floats) -> Floats:
    distance: Floats = (np.sqrt(np.square(x / (0.80 + 0.12 * y)) + y * y) - 1.0) * 0.9
    return distance


def _square(x: Floats, y: Floats, r: Floats, a: Floats) -> Floats:
    distance: Floats = np.maximum(np.abs(x), np.abs(y)) - 0.80
    return distance


def _heart(x: Floats, y: Floats, r: Floats, a: Floats) -> Floats:
    distance: Floats = (np.sqrt(x * x + np.square(1.1 * y - 0.02 + 0.75 * np.sqrt(np.abs(x)))) - 0.92) * 0.8
    return distance


def _disc(x: Floats, y: Floats, r: Floats, a: Floats) -> Floats:
    return r - 0.92


def _gear(x: Floats, y: Floats, r: Floats, a: Floats) -> Floats:
    distance: Floats = r - 0.88 - 0.10 * np.clip(3.0 * np.cos(8.0 * a), -1.0, 1.0)
    return distance


def _house(x: Floats, y: Floats, r: Floats, a: Floats) -> Floats:
    distance: Floats = np.maximum(np.maximum(np.abs(x) - 0.74, y - 0.82), (0.75 * np.abs(x) - y - 0.98) / 1.25)
    return distance


def _star(x: Floats, y: Floats, r: Floats, a: Floats) -> Floats:
    fifth = 2.0 * math.pi / 5.0
    fold = np.abs(np.mod(a, fifth) - fifth / 2.0)  # 0 on the axis of a tip
    tip, dent = 1.18, 0.62
    dx, dy = dent * math.cos(fifth / 2.0) - tip, dent * math.sin(fifth / 2.0)
    length = math.hypot(dx, dy)
    return ((r * np.cos(fold) - tip) * dy - r * np.sin(fold) * dx) / length


def _fish(x: Floats, y: Floats, r: Floats, a: Floats) -> Floats:
    body = (np.sqrt(np.square((x - 0.16) / 0.92) + np.square(y / 0.80)) - 1.0) * 0.80
    tail = np.maximum(np.abs(y) - 0.9 * (-x - 0.35), -x - 1.08)
    distance: Floats = np.minimum(body, tail)
    return distance


def _cross(x: Floats, y: Floats, r: Floats, a: Floats) -> Floats:
    x, y = np.abs(x), np.abs(y)
    distance: Floats = np.minimum(np.maximum(x - 0.44, y - 0.98), np.maximum(y - 0.44, x - 0.98))
    return distance


def _flower(x: Floats, y: Floats, r: Floats, a: Floats) -> Floats:
    distance: Floats = r - 0.82 - 0.16 * np.cos(6.0 * a)
    return distance


FORMS = (_egg, _square, _heart, _disc, _gear, _house, _star, _fish, _cross, _flower)


# Textures: `p` is a factor on the period, `w` the width of one sample.


def edge(distance: Floats, w: float) -> Floats:
    """Coverage in [0, 1] of a sample of width `w` at a signed `distance`, positive inside."""
    coverage: Floats = np.clip(0.5 + distance / w, 0.0, 1.0)
    return coverage


def _cell(i: Floats, j: Floats) -> NDArray[np.int32]:
    return (i.astype(np.int32) * 5 + j.astype(np.int32) * 3) & (COLORS - 1)


def _wave(t: Floats) -> Floats:
    """Triangle wave of period 1 between -0.25 and 0.25, positive on the first half."""
    wave: Floats = 0.25 - np.abs(np.mod(t - 0.25, 1.0) - 0.5)
    return wave


def _stripes(x: Floats, y: Floats, r: Floats, a: Floats, p: float, w: float) -> Pattern:
    p = 0.40 * p
    t = y / p
    return edge(_wave(t) * p, w), np.floor(t).astype(np.int32) & (COLORS - 1)


def _chequers(x: Floats, y: Floats, r: Floats, a: Floats, p: float, w: float) -> Pattern:
    p = 0.40 * p
    i, j = np.floor(x / p), np.floor(y / p)
    near = np.minimum(0.5 - np.abs(x / p - i - 0.5), 0.5 - np.abs(y / p - j - 0.5)) * p
    sign = 1.0 - 2.0 * np.mod(i + j, 2.0)
    return edge(sign * near, w), _cell(i, j)


def _dots(x: Floats, y: Floats, r: Floats, a: Floats, p: float, w: float) -> Pattern:
    p = 0.46 * p
    j = np.floor(y / (0.87 * p))
    shifted = x / p + 0.5 * np.mod(j, 2.0)
    i = np.floor(shifted)
    return edge(0.37 * p - np.hypot((shifted - i - 0.5) * p, y - (j + 0.5) * 0.87 * p), w), _cell(i, j)


def _rings(x: Floats, y: Floats, r: Floats, a: Floats, p: float, w: float) -> Pattern:
    p = 0.42 * p
    t = r / p
    return edge(_wave(t) * p, w), np.floor(t).astype(np.int32) & (COLORS - 1)


def _spokes(x: Floats, y: Floats, r: Floats, a: Floats, p: float, w: float) -> Pattern:
    t = a * (8.0 / math.pi / 2.0)
    return edge(_wave(t) * 0.4, w), np.floor(t).astype(np.int32) & (COLORS - 1)


def _bricks(x: Floats, y: Floats, r: Floats, a: Floats, p: float, w: float) -> Pattern:
    high, wide = 0.34 * p, 0.68 * p
    j = np.floor(y / high)
    shifted = x / wide + 0.5 * np.mod(j, 2.0)
    i = np.floor(shifted)
    inside = np.minimum((0.5 - np.abs(shifted - i - 0.5)) * wide, (0.5 - np.abs(y / high - j - 0.5)) * high)
    return 1.0 - edge(inside - 0.05, w), _cell(i, j)


def _zigzag(x: Floats, y: Floats, r: Floats, a: Floats, p: float, w: float) -> Pattern:
    p = 0.40 * p
    t = (y + 2.0 * p * np.abs(_wave(x / (2.4 * p)) * 2.0)) / p
    return edge(_wave(t) * 0.6 * p, w), np.floor(t).astype(np.int32) & (COLORS - 1)


def _scales(x: Floats, y: Floats, r: Floats, a: Floats, p: float, w: float) -> Pattern:
    p = 0.5 * p
    j = np.floor(y / (0.5 * p))
    shifted = x / p + 0.5 * np.mod(j, 2.0)
    i = np.floor(shifted)
    d = np.hypot((shifted - i - 0.5) * p, y - j * 0.5 * p)
    return np.clip(0.1 + 2.2 * d / p, 0.0, 1.0) * edge(0.46 * p - d, w), _cell(i, j)


def _lattice(x: Floats, y: Floats, r: Floats, a: Floats, p: float, w: float) -> Pattern:
    p = 0.36 * p
    s, t = (x + y) * 0.7071, (x - y) * 0.7071
    near = np.minimum(np.abs(_half(s / p)), np.abs(_half(t / p))) * p
    return edge(0.055 - near, w), _cell(np.floor(s / p), np.floor(t / p))


def _half(t: Floats) -> Floats:
    return t - np.floor(t) - 0.5


def _marble(x: Floats, y: Floats, r: Floats, a: Floats, p: float, w: float) -> Pattern:
    p = 0.8 * p
    s = np.sin(5.0 * x / p + 2.1 * np.sin(2.6 * y / p)) + np.sin(4.4 * y / p + 2.3 * np.sin(3.1 * x / p + 1.0))
    return np.clip(0.5 + 0.45 * s, 0.0, 1.0), ((s + 2.0) * 2.0).astype(np.int32) & (COLORS - 1)


TEXTURES = (_stripes, _chequers, _dots, _rings, _spokes, _bricks, _zigzag, _scales, _lattice, _marble)

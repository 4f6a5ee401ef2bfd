"""Scenes of `shapes`: ten textured forms on clutter, drawn with numpy as pure functions of a seed.

A scene is a handful of numbers in a frame that knows no pixels: the shorter side of a picture runs from -1 to 1. One scene
can therefore be drawn at 32 px for training and at 224 px for the evaluation of masks. An object has its own frame, in which
its form has a radius of about 1 and its texture is defined; pose, scale and stretch move that frame.

What two crops of one picture share is the class: form and texture. Every element of a texture (a stripe, a brick, a dot) takes
its own colour out of a random palette, and every tile of the background does too, so colour tells neither class nor picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

CLASSES = (
    "striped egg", "chequered flag", "dotted heart", "ringed target", "spoked wheel",
    "brick house", "zigzag star", "scaled fish", "latticed cross", "marbled flower",
)
SPLITS = ("train", "test", "clips")
SUPERSAMPLING = 2  # samples per pixel and axis; edges are antialiased to the width of one sample on top
TILE = 0.5  # mean side of a background tile
PALETTE = 8  # colours per object and tone, a power of two


class Sample(NamedTuple):
    """One picture: `image` uint8 (px, px, 3), `label` in [0, 10), `mask` uint8 (px, px) with 1 on visible object pixels."""

    image: np.ndarray
    label: int
    mask: np.ndarray


@dataclass(frozen=True)
class Thing:
    """An object: its class, its frame in the scene and its colours. `ink` and `paper` are (PALETTE, 3) in [0, 1]."""

    label: int
    centre: tuple[float, float]
    scale: float
    angle: float
    stretch: float
    period: float  # factor on the texture's period
    phase: tuple[float, float]
    ink: np.ndarray
    paper: np.ndarray


@dataclass(frozen=True)
class Scene:
    """A background of coloured tiles, things from back to front, an optional occluding bar, and light."""

    sites: np.ndarray  # (rows, columns, 2)
    tile_colours: np.ndarray  # (tiles, 3)
    tile_slopes: np.ndarray  # (tiles, 2), brightness per unit of length
    things: tuple[Thing, ...]
    bar: tuple[float, float, float, np.ndarray] | None  # angle, distance from the origin, half width, colour
    light: tuple[float, float, float]  # gain, and its slope along x and y


# Forms: signed, about distance-like, negative inside; arguments in the object's frame, y pointing down.

def _egg(x, y, r, a):
    return (np.sqrt(np.square(x / (0.80 + 0.12 * y)) + y * y) - 1.0) * 0.9


def _square(x, y, r, a):
    return np.maximum(np.abs(x), np.abs(y)) - 0.80


def _heart(x, y, r, a):
    return (np.sqrt(x * x + np.square(1.1 * y - 0.02 + 0.75 * np.sqrt(np.abs(x)))) - 0.92) * 0.8


def _disc(x, y, r, a):
    return r - 0.92


def _gear(x, y, r, a):
    return r - 0.88 - 0.10 * np.clip(3.0 * np.cos(8.0 * a), -1.0, 1.0)


def _house(x, y, r, a):
    return np.maximum(np.maximum(np.abs(x) - 0.74, y - 0.82), (0.75 * np.abs(x) - y - 0.98) / 1.25)


def _star(x, y, r, a):
    fifth = 2.0 * math.pi / 5.0
    fold = np.abs(np.mod(a, fifth) - fifth / 2.0)  # 0 on the axis of a tip
    tip, dent = 1.18, 0.62
    dx, dy = dent * math.cos(fifth / 2.0) - tip, dent * math.sin(fifth / 2.0)
    length = math.hypot(dx, dy)
    return ((r * np.cos(fold) - tip) * dy - r * np.sin(fold) * dx) / length


def _fish(x, y, r, a):
    body = (np.sqrt(np.square((x - 0.16) / 0.92) + np.square(y / 0.80)) - 1.0) * 0.80
    tail = np.maximum(np.abs(y) - 0.9 * (-x - 0.35), -x - 1.08)
    return np.minimum(body, tail)


def _cross(x, y, r, a):
    x, y = np.abs(x), np.abs(y)
    return np.minimum(np.maximum(x - 0.44, y - 0.98), np.maximum(y - 0.44, x - 0.98))


def _flower(x, y, r, a):
    return r - 0.82 - 0.16 * np.cos(6.0 * a)


FORMS = (_egg, _square, _heart, _disc, _gear, _house, _star, _fish, _cross, _flower)


# Textures: (tone in [0, 1] from ink to paper, number of the element); `w` is the width of one sample in the object's frame.

def _edge(distance, w):
    return np.clip(0.5 + distance / w, 0.0, 1.0)


def _cell(i, j):
    return (i.astype(np.int32) * 5 + j.astype(np.int32) * 3) & (PALETTE - 1)


def _wave(t):
    """Triangle wave of period 1 between -0.25 and 0.25, positive on the first half."""
    return 0.25 - np.abs(np.mod(t - 0.25, 1.0) - 0.5)


def _stripes(x, y, r, a, p, w):
    p = 0.40 * p
    t = y / p
    return _edge(_wave(t) * p, w), np.floor(t).astype(np.int32) & (PALETTE - 1)


def _chequers(x, y, r, a, p, w):
    p = 0.40 * p
    i, j = np.floor(x / p), np.floor(y / p)
    near = np.minimum(0.5 - np.abs(x / p - i - 0.5), 0.5 - np.abs(y / p - j - 0.5)) * p
    sign = 1.0 - 2.0 * np.mod(i + j, 2.0)
    return _edge(sign * near, w), _cell(i, j)


def _dots(x, y, r, a, p, w):
    p = 0.46 * p
    j = np.floor(y / (0.87 * p))
    shifted = x / p + 0.5 * np.mod(j, 2.0)
    i = np.floor(shifted)
    return _edge(0.37 * p - np.hypot((shifted - i - 0.5) * p, y - (j + 0.5) * 0.87 * p), w), _cell(i, j)


def _rings(x, y, r, a, p, w):
    p = 0.42 * p
    t = r / p
    return _edge(_wave(t) * p, w), np.floor(t).astype(np.int32) & (PALETTE - 1)


def _spokes(x, y, r, a, p, w):
    t = a * (8.0 / math.pi / 2.0)
    return _edge(_wave(t) * 0.4, w), np.floor(t).astype(np.int32) & (PALETTE - 1)


def _bricks(x, y, r, a, p, w):
    high, wide = 0.34 * p, 0.68 * p
    j = np.floor(y / high)
    shifted = x / wide + 0.5 * np.mod(j, 2.0)
    i = np.floor(shifted)
    inside = np.minimum((0.5 - np.abs(shifted - i - 0.5)) * wide, (0.5 - np.abs(y / high - j - 0.5)) * high)
    return 1.0 - _edge(inside - 0.05, w), _cell(i, j)


def _zigzag(x, y, r, a, p, w):
    p = 0.40 * p
    t = (y + 2.0 * p * np.abs(_wave(x / (2.4 * p)) * 2.0)) / p
    return _edge(_wave(t) * 0.6 * p, w), np.floor(t).astype(np.int32) & (PALETTE - 1)


def _scales(x, y, r, a, p, w):
    p = 0.5 * p
    j = np.floor(y / (0.5 * p))
    shifted = x / p + 0.5 * np.mod(j, 2.0)
    i = np.floor(shifted)
    d = np.hypot((shifted - i - 0.5) * p, y - j * 0.5 * p)
    return np.clip(0.1 + 2.2 * d / p, 0.0, 1.0) * _edge(0.46 * p - d, w), _cell(i, j)


def _lattice(x, y, r, a, p, w):
    p = 0.36 * p
    s, t = (x + y) * 0.7071, (x - y) * 0.7071
    near = np.minimum(np.abs(_half(s / p)), np.abs(_half(t / p))) * p
    return _edge(0.055 - near, w), _cell(np.floor(s / p), np.floor(t / p))


def _half(t):
    return t - np.floor(t) - 0.5


def _marble(x, y, r, a, p, w):
    p = 0.8 * p
    s = np.sin(5.0 * x / p + 2.1 * np.sin(2.6 * y / p)) + np.sin(4.4 * y / p + 2.3 * np.sin(3.1 * x / p + 1.0))
    return np.clip(0.5 + 0.45 * s, 0.0, 1.0), ((s + 2.0) * 2.0).astype(np.int32) & (PALETTE - 1)


TEXTURES = (_stripes, _chequers, _dots, _rings, _spokes, _bricks, _zigzag, _scales, _lattice, _marble)


def _colours(rng: np.random.Generator, n: int, low: float, high: float) -> np.ndarray:
    """(n, 3) colours of random hue with a brightness in [low, high]."""
    hue = rng.random((n, 1)) + np.array([0.0, 1.0 / 3.0, 2.0 / 3.0])
    pure = np.clip(np.abs(np.mod(hue, 1.0) * 6.0 - 3.0) - 1.0, 0.0, 1.0)
    saturation = rng.uniform(0.25, 0.85, (n, 1))
    return (rng.uniform(low, high, (n, 1)) * (1.0 - saturation + saturation * pure)).astype(np.float32)


def _thing(rng: np.random.Generator, label: int, scale: tuple[float, float], reach: float) -> Thing:
    return Thing(
        label=label,
        centre=tuple(rng.uniform(-reach, reach, 2)),
        scale=rng.uniform(*scale),
        angle=rng.uniform(-0.4, 0.4),
        stretch=math.exp(rng.uniform(-0.15, 0.15)),
        period=math.exp(rng.uniform(-0.12, 0.12)),
        phase=tuple(rng.uniform(-3.0, 3.0, 2)),
        ink=_colours(rng, PALETTE, 0.05, 0.45),
        paper=_colours(rng, PALETTE, 0.75, 1.0),
    )


def _scene(rng: np.random.Generator, things: tuple[Thing, ...], width: float, bar: bool) -> Scene:
    rows, columns = 2 * math.ceil(1.0 / TILE) + 2, 2 * math.ceil(width / TILE) + 2
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1) - (columns / 2.0, rows / 2.0)
    angle = rng.uniform(0.0, math.pi)
    occluder = (angle, rng.uniform(-0.9, 0.9), rng.uniform(0.04, 0.10), _colours(rng, 1, 0.2, 0.9)[0])
    return Scene(
        sites=((grid + rng.uniform(0.0, 1.0, grid.shape)) * TILE).astype(np.float32),
        tile_colours=_colours(rng, rows * columns, 0.05, 1.0),
        tile_slopes=rng.uniform(-1.0, 1.0, (rows * columns, 2)).astype(np.float32),
        things=things,
        bar=occluder if bar else None,
        light=(rng.uniform(0.85, 1.1), *rng.uniform(-0.15, 0.15, 2)),
    )


def scene(seed: int, split: str, index: int) -> Scene:
    """The scene of one picture. Classes take turns: the label is `index % 10`."""
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    thing = _thing(rng, index % len(CLASSES), (0.80, 1.05), 0.28)
    return _scene(rng, (thing,), width=1.0, bar=rng.random() < 0.5)


def draw(scene: Scene, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 (height, width, 3) and mask uint8 (height, width): 0 background, i the i-th thing where it is visible."""
    step = 2.0 / (min(height, width) * SUPERSAMPLING)
    y = ((np.arange(height * SUPERSAMPLING, dtype=np.float32) + 0.5) * step - height * SUPERSAMPLING * step / 2.0)[:, None]
    x = ((np.arange(width * SUPERSAMPLING, dtype=np.float32) + 0.5) * step - width * SUPERSAMPLING * step / 2.0)[None, :]
    picture = _background(scene, x, y)
    covers = []
    for thing in scene.things:
        cover, colour = _paint(thing, x, y, step)
        picture += cover[..., None] * (colour - picture)
        covers = [below * (1.0 - cover) for below in covers] + [cover]
    if scene.bar is not None:
        angle, offset, half, colour = scene.bar
        cover = _edge(half - np.abs(math.cos(angle) * x + math.sin(angle) * y - offset), step)
        picture += cover[..., None] * (colour - picture)
        covers = [below * (1.0 - cover) for below in covers]
    gain, along_x, along_y = scene.light
    picture *= (gain + along_x * x + along_y * y)[..., None]
    image = (np.clip(_pool(picture), 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    for number, cover in enumerate(covers, start=1):
        mask[_pool(cover) > 0.5] = number
    return image, mask


def _background(scene: Scene, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Tiles around one jittered site per cell of a grid: the nearest site is in the cell or in one of its 8 neighbours."""
    rows, columns = scene.sites.shape[:2]
    column = np.clip(np.floor(x / TILE + columns / 2.0), 1, columns - 2).astype(np.intp)
    row = np.clip(np.floor(y / TILE + rows / 2.0), 1, rows - 2).astype(np.intp)
    nearest = np.full((y.shape[0], x.shape[1]), np.inf, np.float32)
    owner = np.zeros(nearest.shape, np.intp)
    sites = scene.sites.reshape(-1, 2)
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            site = (row + down) * columns + column + right
            offset = sites[site]
            distance = np.square(x - offset[..., 0]) + np.square(y - offset[..., 1])
            closer = distance < nearest
            np.copyto(owner, site, where=closer)
            np.copyto(nearest, distance, where=closer)
    slope, site = scene.tile_slopes[owner], sites[owner]
    shade = 1.0 + (x - site[..., 0]) * slope[..., 0] + (y - site[..., 1]) * slope[..., 1]
    return scene.tile_colours[owner] * shade[..., None]


def _paint(thing: Thing, x: np.ndarray, y: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Coverage (h, w) in [0, 1] and colour (h, w, 3) of a thing on the grid of samples."""
    cos, sin = np.float32(math.cos(thing.angle)), np.float32(math.sin(thing.angle))
    dx, dy = x - np.float32(thing.centre[0]), y - np.float32(thing.centre[1])
    u = (cos * dx + sin * dy) / np.float32(thing.scale * thing.stretch)
    v = (cos * dy - sin * dx) * np.float32(thing.stretch / thing.scale)
    radius, angle, w = np.sqrt(u * u + v * v), np.arctan2(v, u), step / thing.scale
    cover = _edge(-FORMS[thing.label](u, v, radius, angle), w)
    s, t = u + np.float32(thing.phase[0]), v + np.float32(thing.phase[1])
    tone, element = TEXTURES[thing.label](s, t, radius + np.float32(thing.phase[0]), angle, thing.period, w)
    colour = thing.ink[element]
    colour += tone[..., None] * (thing.paper[element] - colour)
    return cover, colour


def _pool(samples: np.ndarray) -> np.ndarray:
    """Mean over the samples of each pixel."""
    a, b = samples[0::SUPERSAMPLING], samples[1::SUPERSAMPLING]
    rows = a + b
    return (rows[:, 0::SUPERSAMPLING] + rows[:, 1::SUPERSAMPLING]) * np.float32(0.25)


def render(seed: int, split: str, index: int, px: int) -> Sample:
    """Picture `index` of a split at `px` x `px`; the same bytes for the same arguments on one machine."""
    image, mask = draw(scene(seed, split, index), px, px)
    return Sample(image, index % len(CLASSES), mask)

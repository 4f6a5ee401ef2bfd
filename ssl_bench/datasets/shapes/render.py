"""Scenes of `shapes`: ten textured forms on clutter, drawn with numpy as pure functions of a seed.

A scene is a handful of numbers in a frame that knows no pixels: the shorter side of a picture runs from -1 to 1. One
scene can be drawn at 32 px for training and at 224 px for the evaluation of masks. An object has its own frame, in
which its form has a radius of about 1 and its texture is defined; pose, scale and stretch move that frame.

What two pictures of a class share is a form, a texture and a typical hue: three cues, and a network can use each of
them, alone or together. Every element of a texture (a stripe, a brick, a dot) takes one of eight light and eight dark
colors of its object. Light ones scatter around the hue typical of the class by more than the step to the next class:
one of them says little, the mean of all of them more. Dark ones, the tiles of the background and the bar are pale and
have any hue.

Light, place and size vary strongly: this is what color jitter and random crops teach a network to ignore. The light
falls on object and background alike, up to 3.7 times brighter in one picture than in another, and slopes across it. No
augmentation of the methods hides that slope: a narrow ResNet tells pictures apart by it (results/README.md).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssl_bench.datasets.shapes.patterns import COLORS, FORMS, TEXTURES, Floats, edge

Bytes = NDArray[np.uint8]

CLASSES = (
    "striped egg",
    "chequered flag",
    "dotted heart",
    "ringed target",
    "spoked wheel",
    "brick house",
    "zigzag star",
    "scaled fish",
    "latticed cross",
    "marbled flower",
)
CLIP_FRAMES = 24  # a path's unit of time: more frames go on along it
SPLITS = ("train", "test", "clips")
SUPERSAMPLING = 2  # samples per pixel and axis; edges are antialiased to the width of one sample on top
TILE = 0.5  # mean side of a background tile
PALE, FULL = (0.0, 0.3), (0.25, 0.85)  # saturation of clutter and dark elements, and of light elements
HUE_SPREAD = 0.12  # in turns; classes are 0.1 apart, so that the hue of one element is a weak hint


class Sample(NamedTuple):
    """One picture: `image` uint8 (px, px, 3), `label` in [0, 10), `mask` uint8 (px, px), 1 where the object shows."""

    image: Bytes
    label: int
    mask: Bytes


@dataclass(frozen=True)
class Thing:
    """An object: its class, its frame in the scene and its colors. `ink` and `paper` are (COLORS, 3) in [0, 1]."""

    label: int
    center: tuple[float, float]
    scale: float
    angle: float
    stretch: float
    period: float  # factor on the texture's period
    phase: tuple[float, float]
    ink: Floats
    paper: Floats


@dataclass(frozen=True)
class Scene:
    """A background of colored tiles, things from back to front, an optional occluding bar, and light."""

    sites: Floats  # (rows, columns, 2)
    tile_colors: Floats  # (tiles, 3)
    tile_slopes: Floats  # (tiles, 2), brightness per unit of length
    things: tuple[Thing, ...]
    bar: tuple[float, float, float, Floats] | None  # angle, distance from the origin, half width, color
    light: tuple[float, float, float]  # gain, and its slope along x and y


def _colors(rng: np.random.Generator, n: int, low: float, high: float, hue: float | None = None) -> Floats:
    """(n, 3) colors with a brightness in [low, high]: pale ones of any hue, or full ones spread around `hue`."""
    chosen = rng.random((n, 1)) if hue is None else hue + rng.normal(0.0, HUE_SPREAD, (n, 1))
    channels = chosen + np.array([0.0, 1.0 / 3.0, 2.0 / 3.0])
    pure = np.clip(np.abs(np.mod(channels, 1.0) * 6.0 - 3.0) - 1.0, 0.0, 1.0)
    saturation = rng.uniform(*(PALE if hue is None else FULL), (n, 1))
    colors: Floats = (rng.uniform(low, high, (n, 1)) * (1.0 - saturation + saturation * pure)).astype(np.float32)
    return colors


def _thing(rng: np.random.Generator, label: int, scale: tuple[float, float], reach: float) -> Thing:
    return Thing(
        label=label,
        center=tuple(rng.uniform(-reach, reach, 2)),
        scale=rng.uniform(*scale),
        angle=rng.uniform(-0.4, 0.4),
        stretch=math.exp(rng.uniform(-0.15, 0.15)),
        period=math.exp(rng.uniform(-0.12, 0.12)),
        phase=tuple(rng.uniform(-3.0, 3.0, 2)),
        ink=_colors(rng, COLORS, 0.05, 0.45),
        paper=_colors(rng, COLORS, 0.75, 1.0, label / len(CLASSES)),
    )


def _scene(rng: np.random.Generator, things: tuple[Thing, ...], width: float, bar: bool) -> Scene:
    rows, columns = 2 * math.ceil(1.0 / TILE) + 2, 2 * math.ceil(width / TILE) + 2
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1) - (columns / 2.0, rows / 2.0)
    angle = rng.uniform(0.0, math.pi)
    gain = math.exp(rng.uniform(math.log(0.35), math.log(1.3)))
    occluder = (angle, rng.uniform(-0.9, 0.9), rng.uniform(0.04, 0.10), _colors(rng, 1, 0.2, 0.9)[0])
    return Scene(
        sites=((grid + rng.uniform(0.0, 1.0, grid.shape)) * TILE).astype(np.float32),
        tile_colors=_colors(rng, rows * columns, 0.05, 1.0),
        tile_slopes=rng.uniform(-1.0, 1.0, (rows * columns, 2)).astype(np.float32),
        things=things,
        bar=occluder if bar else None,
        light=(gain, *(gain * rng.uniform(-0.6, 0.6, 2))),
    )


def scene(seed: int, split: str, index: int) -> Scene:
    """The scene of one picture. Classes take turns: the label is `index % 10`."""
    rng = np.random.default_rng((seed, SPLITS.index(split), index))
    thing = _thing(rng, index % len(CLASSES), (0.60, 1.00), 0.45)
    return _scene(rng, (thing,), width=1.0, bar=rng.random() < 0.5)


def draw(scene: Scene, height: int, width: int) -> tuple[Bytes, Bytes]:
    """Image uint8 (height, width, 3) and mask uint8 (height, width): i where the i-th thing shows, else 0."""
    step = 2.0 / (min(height, width) * SUPERSAMPLING)
    y = ((np.arange(height * SUPERSAMPLING, dtype=np.float32) + 0.5) * step - height * SUPERSAMPLING * step / 2.0)[
        :, None
    ]
    x = ((np.arange(width * SUPERSAMPLING, dtype=np.float32) + 0.5) * step - width * SUPERSAMPLING * step / 2.0)[
        None, :
    ]
    picture = _background(scene, x, y)
    covers: list[Floats] = []
    for thing in scene.things:
        cover, color = _paint(thing, x, y, step)
        picture += cover[..., None] * (color - picture)
        covers = [below * (1.0 - cover) for below in covers] + [cover]
    if scene.bar is not None:
        angle, offset, half, color = scene.bar
        cover = edge(half - np.abs(math.cos(angle) * x + math.sin(angle) * y - offset), step)
        picture += cover[..., None] * (color - picture)
        covers = [below * (1.0 - cover) for below in covers]
    gain, along_x, along_y = scene.light
    picture *= (gain + along_x * x + along_y * y)[..., None]
    image = (np.clip(_pool(picture), 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    mask = np.zeros((height, width), np.uint8)
    for number, cover in enumerate(covers, start=1):
        mask[_pool(cover) > 0.5] = number
    return image, mask


def _background(scene: Scene, x: Floats, y: Floats) -> Floats:
    """Tiles around one jittered site per cell of a grid; only the 9 nearest cells are searched for a pixel's site."""
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
    picture: Floats = scene.tile_colors[owner] * shade[..., None]
    return picture


def _paint(thing: Thing, x: Floats, y: Floats, step: float) -> tuple[Floats, Floats]:
    """Coverage (h, w) in [0, 1] and color (h, w, 3) of a thing on the grid of samples."""
    cos, sin = np.float32(math.cos(thing.angle)), np.float32(math.sin(thing.angle))
    dx, dy = x - np.float32(thing.center[0]), y - np.float32(thing.center[1])
    u = (cos * dx + sin * dy) / np.float32(thing.scale * thing.stretch)
    v = (cos * dy - sin * dx) * np.float32(thing.stretch / thing.scale)
    radius, angle, w = np.sqrt(u * u + v * v), np.arctan2(v, u), step / thing.scale
    cover = edge(-FORMS[thing.label](u, v, radius, angle), w)
    s, t = u + np.float32(thing.phase[0]), v + np.float32(thing.phase[1])
    tone, element = TEXTURES[thing.label](s, t, radius + np.float32(thing.phase[0]), angle, thing.period, w)
    color = thing.ink[element]
    color += tone[..., None] * (thing.paper[element] - color)
    return cover, color


def _pool(samples: Floats) -> Floats:
    """Mean over the samples of each pixel."""
    a, b = samples[0::SUPERSAMPLING], samples[1::SUPERSAMPLING]
    rows = a + b
    mean: Floats = (rows[:, 0::SUPERSAMPLING] + rows[:, 1::SUPERSAMPLING]) * np.float32(0.25)
    return mean


def render(seed: int, split: str, index: int, px: int) -> Sample:
    """Picture `index` of a split at `px` x `px`; the same bytes for the same arguments on one machine."""
    image, mask = draw(scene(seed, split, index), px, px)
    return Sample(image, index % len(CLASSES), mask)


def clip_scenes(seed: int, index: int, aspect: float, frames: int) -> list[Scene]:
    """The scenes of one clip: one to three objects on smooth paths over a still background, nearer ones hiding others.

    `aspect` is width / height of the frames.
    """
    rng = np.random.default_rng((seed, SPLITS.index("clips"), index))
    count = int(rng.integers(1, 4))
    labels = rng.permutation(len(CLASSES))[:count]
    things = [_thing(rng, int(label), (0.30, 0.50), 0.0) for label in labels]
    still = _scene(rng, (), width=aspect, bar=False)
    starts = rng.uniform(-0.6, 0.6, (count, 2)) * (aspect, 1.0)
    heading = rng.uniform(0.0, 2.0 * math.pi, count)
    ways = rng.uniform(0.4, 1.0, (count, 1)) * np.stack([np.cos(heading), np.sin(heading)], axis=1)
    bends = rng.uniform(-0.25, 0.25, (count, 2))
    turns, growths = rng.uniform(-0.8, 0.8, count), rng.uniform(-0.2, 0.2, count)
    scenes = []
    for frame in range(frames):
        time = frame / CLIP_FRAMES
        moved = []
        for thing, start, way, bend, turn, growth in zip(things, starts, ways, bends, turns, growths, strict=True):
            place = start + way * time + bend * math.sin(2.0 * math.pi * time)
            center = tuple(_reflect(place, np.array((aspect, 1.0)) * 0.9))
            scale = thing.scale * math.exp(growth * math.sin(math.pi * time))
            moved.append(replace(thing, center=center, angle=thing.angle + turn * time, scale=scale))
        scenes.append(replace(still, things=tuple(moved)))
    return scenes


def _reflect(place: NDArray[np.float64], bound: NDArray[np.float64]) -> NDArray[np.float64]:
    """A path that would leave [-bound, bound] comes back: a triangle wave."""
    reflected: NDArray[np.float64] = bound - np.abs(np.mod(place + bound, 4.0 * bound) - 2.0 * bound)
    return reflected


def render_clip(seed: int, index: int, size: int | tuple[int, int], frames: int = CLIP_FRAMES) -> tuple[Bytes, Bytes]:
    """Images uint8 (frames, height, width, 3) and masks (frames, height, width), i on object i; `size` in px."""
    height, width = (size, size) if isinstance(size, int) else size
    drawn = [draw(scene, height, width) for scene in clip_scenes(seed, index, width / height, frames)]
    return np.stack([image for image, _ in drawn]), np.stack([mask for _, mask in drawn])

"""A sheet of attention: the image, the map of each head and their mean, and the masks that hold most of the mass.

Maps are shown patch by patch in inferno, each from its own lowest to its own highest value as visualize_attention.py
does (its captions say how high that is); masks lie over the image in a color of each head's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from colorsys import hsv_to_rgb
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ssl_bench.datasets.indexed_png import PALETTE, VOID, Mask
from ssl_bench.evaluators.voc_jaccard.attention_masks import Floats, keep_mass, upsampled

INK, PAPER, BEST = (20, 20, 20), (255, 255, 255), (0, 130, 60)
MEAN = (0, 160, 215)
"""Color of the mean map's mask."""
SHAPE = 1.6
"""Width to height that a sheet comes near to."""
Color = tuple[int, int, int]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Scored:
    """What is known of an image whose true masks are known."""

    truth: Mask
    """(height, width) of the image: 0 background, 255 void."""
    heads: Floats
    """(heads,): Jaccard of each head's mask, mean over the true masks, in 0..1."""
    mean_map: float
    """The same of the mask of the mean map."""


@dataclass(frozen=True)
class _Tile:
    caption: str
    pixels: Pixels
    best: bool = False


def attention_sheet(
    image: Image.Image, maps: Floats, share: float, *, title: str, tile_px: int, scored: Scored | None = None
) -> Image.Image:
    """The sheet as an RGB image; `maps` (heads, rows, columns), `share` the mass that a mask keeps.

    `tile_px` is the longer side of each picture on it.
    """
    scale = tile_px / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    plain = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
    heads = len(maps)
    kept = keep_mass(maps.reshape(heads, -1), share).reshape(maps.shape)
    mean = maps.mean(axis=0)
    kept_of_mean = keep_mass(mean.reshape(1, -1), share).reshape(mean.shape)
    shares = np.where(kept, maps / maps.sum(axis=(1, 2), keepdims=True), 0.0)
    strongest = np.where(kept.any(axis=0), shares.argmax(axis=0), -1)
    colors, percent = _colors(heads), f"{100 * share:g} %"

    known = [] if scored is None else [_Tile("ground truth", _with_truth(plain, scored.truth))]
    score = "" if scored is None else f", J {100 * scored.mean_map:.1f} %"
    overview = [
        _Tile("image", plain),
        *known,
        _Tile("mean of the heads", _heat(mean, (height, width))),
        _Tile(f"mean, {percent} of it{score}", _tinted(plain, kept_of_mean - 1, [MEAN])),
        _Tile("strongest head of each patch", _tinted(plain, strongest, colors)),
    ]
    seen, masked = [], []
    best = None if scored is None else int(scored.heads.argmax())
    for head, color in enumerate(colors):
        peak = maps[head].max() / maps[head].mean()
        seen.append(_Tile(f"head {head + 1}, peak {peak:.1f} x mean", _heat(maps[head], (height, width))))
        score = "" if scored is None else f", J {100 * scored.heads[head]:.1f} %"
        overlaid = _tinted(plain, kept[head] - 1, [color])
        masked.append(_Tile(f"head {head + 1}, {percent}{score}", overlaid, best=head == best))
        if head == best:
            overview.append(_Tile(f"best head: {head + 1}{score}", overlaid, best=True))
    return _lay_out([overview, seen, masked], title)


def _heat(values: Floats, size: tuple[int, int]) -> Pixels:
    """One map in inferno at `size` (height, width), patch by patch."""
    low, high = float(values.min()), float(values.max())
    colored = colormaps["inferno"]((values - low) / ((high - low) or 1.0), bytes=True)[..., :3]
    return np.asarray(Image.fromarray(np.ascontiguousarray(colored)).resize(size[::-1], Image.Resampling.NEAREST))


def _tinted(plain: Pixels, owners: NDArray[np.int64], colors: Sequence[Color]) -> Pixels:
    """The image in dim gray, the patches of each owner tinted in its color and outlined; -1 owns none."""
    owner = upsampled(owners, plain.shape[:2])
    color = np.array([*colors, INK])[owner]
    picture = np.where((owner >= 0)[..., None], 0.6 * plain + 0.4 * color, _dimmed(plain))
    padded = np.pad(owner, 1, mode="edge")
    around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    outline = (owner >= 0) & np.any([owner != other for other in around], axis=0)
    picture[outline] = color[outline]
    return picture.round().astype(np.uint8)


def _dimmed(plain: Pixels) -> Floats:
    gray: Floats = 0.55 * plain.mean(axis=2, keepdims=True) + 0.45 * 255
    return gray


def _with_truth(plain: Pixels, truth: Mask) -> Pixels:
    """The image with its true masks in VOC's palette; void in its cream."""
    size = (plain.shape[1], plain.shape[0])
    mask = np.asarray(Image.fromarray(truth).resize(size, Image.Resampling.NEAREST))
    alpha = np.select([mask == 0, mask == VOID], [0.0, 0.9], 0.6)[..., None]
    gray = np.where((mask == 0)[..., None], _dimmed(plain), plain)
    mixed: Pixels = (gray * (1 - alpha) + PALETTE[mask] * alpha).round().astype(np.uint8)
    return mixed


def _colors(count: int) -> list[Color]:
    """matplotlib's tab10 without its gray, which would not stand out; hues around the circle for more heads."""
    if count < 10:
        picked = [colormaps["tab10"](index)[:3] for index in (0, 1, 2, 3, 4, 5, 6, 8, 9)[:count]]
    else:
        picked = [hsv_to_rgb(head / count, 0.9, 0.6 + 0.35 * (head % 2)) for head in range(count)]
    return [(round(255 * one[0]), round(255 * one[1]), round(255 * one[2])) for one in picked]


def _lay_out(groups: Sequence[Sequence[_Tile]], title: str) -> Image.Image:
    """Groups of tiles under each other, each from a new row; captions above tiles of one size, on white."""
    height, width = groups[0][0].pixels.shape[:2]
    text = min(28, max(11, round((width * height) ** 0.5 / 15)))
    font, large = ImageFont.load_default(text), ImageFont.load_default(round(1.3 * text))
    gap, line = max(6, text // 2), round(1.5 * text)
    captions = max(math.ceil(font.getlength(tile.caption)) for group in groups for tile in group)
    step, fall = max(width, captions) + gap, line + height + gap
    columns = _columns([len(group) for group in groups], step / fall)
    rows = [group[first : first + columns] for group in groups for first in range(0, len(group), columns)]
    top = gap + round(2.2 * text)
    across = max(columns * step, math.ceil(large.getlength(title)) + gap)
    sheet = Image.new("RGB", (gap + across, top + len(rows) * fall), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, gap), title, INK, large)
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            left, above = gap + column * step, top + row * fall
            draw.text((left, above), tile.caption, BEST if tile.best else INK, font)
            if tile.best:
                draw.rectangle((left - 3, above + line - 3, left + width + 2, above + line + height + 2), BEST)
            sheet.paste(Image.fromarray(tile.pixels), (left, above + line))
    return sheet


def _columns(groups: Sequence[int], aspect: float) -> int:
    """How many tiles of `aspect` stand in a row, so that the sheet is near `SHAPE` and few places stay empty."""

    def badness(columns: int) -> float:
        rows = sum(-(-count // columns) for count in groups)
        return abs(math.log(columns * aspect / rows / SHAPE)) + (columns * rows - sum(groups)) / sum(groups)

    return min(range(1, max(groups) + 1), key=badness)

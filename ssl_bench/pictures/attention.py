"""A sheet of attention: the image, the map of each head and their mean, and the masks that hold most of the mass.

Maps are shown patch by patch in inferno, each from its own lowest to its own highest value as visualize_attention.py
does (its captions say how high that is); masks lie over the image in a colour of each head's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ssl_bench.datasets.indexed_png import PALETTE, VOID, Mask
from ssl_bench.evaluators.attention_masks import Floats, keep_mass, upsampled

INK, FAINT, PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)
GOOD = (0, 130, 60)
Colour = tuple[int, int, int]
Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Judged:
    """What is known of an image whose true masks are known."""

    truth: Mask
    """(height, width) of the image: 0 background, 255 void."""
    jaccards: Floats
    """(heads,): mean over the true masks, in 0..1."""


@dataclass(frozen=True)
class _Tile:
    caption: str
    pixels: Pixels
    colour: Colour = INK


def attention_sheet(
    image: Image.Image, maps: Floats, share: float, *, title: str, tile_px: int, judged: Judged | None = None
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
    colours = _colours(heads)
    top = [_Tile("image", plain)]
    best = None if judged is None else int(judged.jaccards.argmax())
    if judged is not None:
        top.append(_Tile("ground truth", _with_truth(plain, judged.truth)))
    top.append(_Tile("mean of the heads", _heat(mean, (height, width))))
    if best is None:
        mask = keep_mass(mean.reshape(1, -1), share).reshape(mean.shape)
        top.append(_Tile(f"mean: {share:.0%} of its mass", _with_mask(plain, mask, GOOD)))
    else:
        words = f"best head: {best + 1}, Jaccard {100 * judged.jaccards[best]:.1f} %" if judged else ""
        top.append(_Tile(words, _with_mask(plain, kept[best], colours[best]), GOOD))
    seen, masked = [], []
    for head in range(heads):
        peak = maps[head].max() / maps[head].sum()
        seen.append(_Tile(f"head {head + 1}, peak {100 * peak:.1f} %", _heat(maps[head], (height, width))))
        words = f"head {head + 1}" if judged is None else f"head {head + 1}, J {100 * judged.jaccards[head]:.1f} %"
        overlaid = _with_mask(plain, kept[head], colours[head])
        masked.append(_Tile(words, overlaid, GOOD if head == best else INK))
    columns = next((count for count in (6, 8, 5, 7, 4, 3) if heads % count == 0), min(heads, 6))
    rows = [top]
    for tiles in (seen, masked):
        rows += [tiles[first : first + columns] for first in range(0, heads, columns)]
    return _lay_out(rows, title)


def _heat(values: Floats, size: tuple[int, int]) -> Pixels:
    """One map in inferno at `size` (height, width), patch by patch."""
    low, high = float(values.min()), float(values.max())
    coloured = colormaps["inferno"]((values - low) / ((high - low) or 1.0), bytes=True)[..., :3]
    return np.asarray(Image.fromarray(np.ascontiguousarray(coloured)).resize(size[::-1], Image.Resampling.NEAREST))


def _with_mask(plain: Pixels, patches: NDArray[np.bool_], colour: Colour) -> Pixels:
    """The image with the kept patches tinted and outlined, the rest in dim grey."""
    inside = upsampled(patches, plain.shape[:2])
    grey = plain.mean(axis=2, keepdims=True)
    outside = 0.55 * grey + 0.45 * 255
    tinted = np.where(inside[..., None], 0.6 * plain + 0.4 * np.array(colour), outside)
    tinted[_outline(inside)] = colour
    return tinted.round().astype(np.uint8)


def _with_truth(plain: Pixels, truth: Mask) -> Pixels:
    """The image with its true masks in VOC's palette; void in its cream."""
    size = (plain.shape[1], plain.shape[0])
    mask = np.asarray(Image.fromarray(truth).resize(size, Image.Resampling.NEAREST))
    alpha = np.select([mask == 0, mask == VOID], [0.0, 0.9], 0.6)[..., None]
    grey = np.where((mask == 0)[..., None], 0.55 * plain.mean(axis=2, keepdims=True) + 0.45 * 255, plain)
    mixed: Pixels = (grey * (1 - alpha) + PALETTE[mask] * alpha).round().astype(np.uint8)
    return mixed


def _outline(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The pixels inside that touch one outside."""
    padded = np.pad(inside, 1, mode="edge")
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    edge: NDArray[np.bool_] = inside & ~core
    return edge


def _colours(count: int) -> list[Colour]:
    table = colormaps["tab10" if count <= 10 else "tab20"]
    found = (table(index % table.N, bytes=True)[:3] for index in range(count))
    return [(int(red), int(green), int(blue)) for red, green, blue in found]


def _lay_out(rows: Sequence[Sequence[_Tile]], title: str) -> Image.Image:
    """Tiles in rows under their captions, all of one size, on white."""
    height, width = rows[0][0].pixels.shape[:2]
    text = max(11, round(width / 17))
    font, large = ImageFont.load_default(text), ImageFont.load_default(round(1.3 * text))
    gap, line = max(4, width // 40), round(1.5 * text)
    columns = max(len(row) for row in rows)
    top = gap + round(2.2 * text)
    sheet = Image.new("RGB", (gap + columns * (width + gap), top + len(rows) * (line + height + gap)), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, gap), title, INK, large)
    for row, tiles in enumerate(rows):
        for column, tile in enumerate(tiles):
            left, above = gap + column * (width + gap), top + row * (line + height + gap)
            draw.text((left, above), tile.caption, tile.colour, font)
            sheet.paste(Image.fromarray(tile.pixels), (left, above + line))
            if tile.colour == GOOD:
                draw.rectangle((left - 2, above + line - 2, left + width + 1, above + line + height + 1), None, GOOD, 2)
    return sheet

"""A picture sheet of a dataset: samples of it, and below them the views that each method makes of the same images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from ssl_bench.dataset import Dataset
from ssl_bench.inspection.views_of_methods import MethodViews

INK, QUIET, PAPER = (20, 20, 20), (110, 110, 110), (255, 255, 255)
TILE_PX, GAP_PX, TEXT_PX, TITLE_PX, MARGIN_PX = 112, 6, 12, 16, 14
COLUMNS = 12
"""Tiles in a row: an image and its views."""


@dataclass(frozen=True)
class _Tile:
    picture: Image.Image | None
    caption: str = ""


@dataclass(frozen=True)
class _Band:
    """Rows of tiles under a title."""

    title: str
    rows: Sequence[Sequence[_Tile]]


def sheet(title: str, samples: Sequence[tuple[Image.Image, str]], methods: Sequence[MethodViews]) -> Image.Image:
    """The sheet as an RGB image: `samples` with their captions, and the methods' views of the first of them."""
    rows = [samples[low : low + COLUMNS] for low in range(0, len(samples), COLUMNS)]
    bands = [_Band(title, [[_Tile(_fitted(image), caption) for image, caption in row] for row in rows])]
    for one in methods:
        largest = max((view.shape[0] for views in one.views for view in views), default=1)
        sizes = [view.shape[0] for view in one.views[0]]
        kinds = ", ".join(f"{sizes.count(px)} of {px} px" for px in dict.fromkeys(sizes)) or "none that is an image"
        others = f" and {one.others} masks or other tensors" if one.others else ""
        groups = []
        for (image, _), views in zip(samples, one.views, strict=False):
            tiles = [_Tile(_fitted(image), "image")]
            for view in views[: COLUMNS - 1]:
                side = max(24, round(TILE_PX * view.shape[0] / largest))
                tiles.append(_Tile(Image.fromarray(view).resize((side, side), _resampling(view.shape[0], side))))
            groups.append(tiles)
        left_out = len(sizes) - (COLUMNS - 1)
        remark = f"; {left_out} more views are not shown" if left_out > 0 else ""
        bands.append(_Band(f"{one.method}, preset {one.preset}: views {kinds}{others}{remark}", _packed(groups)))
    return _drawn(bands)


def _packed(groups: Sequence[Sequence[_Tile]]) -> list[list[_Tile]]:
    """As many groups in a row as fit, with an empty place between them."""
    rows: list[list[_Tile]] = []
    for group in groups:
        if rows and len(rows[-1]) + 1 + len(group) <= COLUMNS:
            rows[-1] += [_Tile(None), *group]
        else:
            rows.append(list(group))
    return rows


def samples_of(data: Dataset, count: int) -> list[int]:
    """Indices of training images, the classes taking turns; evenly chosen without labels."""
    split = data.pretraining
    if split.labels is None:
        count = min(count, len(split))
        return [index * len(split) // count for index in range(count)]
    of_class: dict[int, list[int]] = {}
    for index, label in enumerate(split.labels):
        of_class.setdefault(label, []).append(index)
    classes = [of_class[label] for label in sorted(of_class)]
    if len(classes) > count:
        classes = [classes[index * len(classes) // count] for index in range(count)]
    drawn = [members[turn] for turn in range(count) for members in classes if turn < len(members)]
    return drawn[: min(count, len(split))]


def _fitted(image: Image.Image) -> Image.Image:
    """The whole image, its longer side as long as a tile."""
    scale = TILE_PX / max(image.size)
    size = tuple(max(1, round(side * scale)) for side in image.size)
    return image.resize((size[0], size[1]), _resampling(max(image.size), TILE_PX))


def _resampling(before_px: int, after_px: int) -> Image.Resampling:
    """Pixels stay visible as squares where a small image is enlarged."""
    return Image.Resampling.NEAREST if before_px < after_px else Image.Resampling.LANCZOS


def _drawn(bands: Sequence[_Band]) -> Image.Image:
    text, title = ImageFont.load_default(TEXT_PX), ImageFont.load_default(TITLE_PX)
    columns = max(len(row) for band in bands for row in band.rows)
    widest = max(title.getlength(band.title) for band in bands)
    width = int(max(columns * (TILE_PX + GAP_PX), widest)) + 2 * MARGIN_PX
    heights = [[_row_px(row) for row in band.rows] for band in bands]
    height = MARGIN_PX + sum(TITLE_PX + 10 + sum(rows) + MARGIN_PX for rows in heights)
    page = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(page)
    top = MARGIN_PX
    for band, rows in zip(bands, heights, strict=True):
        draw.text((MARGIN_PX, top), band.title, INK, title)
        top += TITLE_PX + 10
        for row, row_px in zip(band.rows, rows, strict=True):
            for column, tile in enumerate(row):
                left = MARGIN_PX + column * (TILE_PX + GAP_PX)
                if tile.picture is not None:
                    page.paste(tile.picture, (left, top))
                if tile.caption:
                    below = top + (tile.picture.height if tile.picture else 0) + 2
                    draw.text((left, below), _cut(tile.caption, text), QUIET, text)
            top += row_px
        top += MARGIN_PX
    return page


def _row_px(row: Sequence[_Tile]) -> int:
    heights = [tile.picture.height + (TEXT_PX + 4) * bool(tile.caption) for tile in row if tile.picture]
    return max(heights, default=0) + GAP_PX


def _cut(caption: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """As much of a caption as fits below a tile."""
    if font.getlength(caption) <= TILE_PX:
        return caption
    kept = next(end for end in range(len(caption), -1, -1) if font.getlength(caption[:end] + "...") <= TILE_PX)
    return caption[:kept] + "..."

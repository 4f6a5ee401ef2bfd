"""Sheets of attention: what stands where, in which colors, at which size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from ssl_bench.datasets.indexed_png import PALETTE
from ssl_bench.evaluators.voc_jaccard.pictures import BEST, Scored, _colors, _columns, attention_sheet


def sheet(heads: int = 6, size: tuple[int, int] = (120, 90), **options: Any) -> np.ndarray:
    """Of a gray image; head h attends most to its h-th patch of 3 x 4, evenly to the others."""
    maps = np.ones((heads, 3, 4))
    for head in range(heads):
        maps[head].flat[head % 12] = 30.0
    values = {"title": "a title", "tile_px": 120, **options}
    return np.asarray(attention_sheet(Image.new("RGB", size, (100, 100, 100)), maps, 0.6, **values))


def count(pixels: np.ndarray, color: tuple[int, ...]) -> int:
    return int((pixels == np.array(color)).all(axis=2).sum())


def test_maps_are_in_inferno_patch_by_patch() -> None:
    """Six heads and their mean: the highest patch of each map has inferno's last color and 30 x 30 px."""
    pixels = sheet()
    brightest, darkest = (tuple(colormaps["inferno"](value, bytes=True)[:3]) for value in (1.0, 0.0))
    assert count(pixels, brightest) == (6 + 6) * 900  # in the mean of the heads each of them has a patch
    assert count(pixels, darkest) == (6 * 11 + 6) * 900


def test_masks_are_tinted_in_a_color_of_each_head() -> None:
    """30 of 41: one patch is 73 % of the mass, so it is kept alone: in its head's tile and among the strongest heads.

    Its outline, 1 px on each side that is not the image's, has the color, the inside a tint.
    """
    pixels = sheet()
    colors = _colors(6)
    assert len(set(colors)) == 6
    outlines = (59, 88, 88, 59, 88, 116)  # two, three or four sides of 30 px, corners once
    for color, outline in zip(colors, outlines, strict=True):
        tint = tuple(np.round(0.6 * 100 + 0.4 * np.array(color)).astype(int))
        assert (count(pixels, color), count(pixels, tint)) == (2 * outline, 2 * (900 - outline))


def test_the_best_head_is_framed_and_the_truth_in_its_palette() -> None:
    truth = np.zeros((90, 120), np.uint8)
    truth[30:60, 30:90], truth[30:60, 90:100] = 5, 255
    scored = Scored(truth, np.array([0.1, 0.2, 0.5, 0.3, 0.0, 0.1]), 0.15)
    plain, framed = sheet(), sheet(scored=scored)
    assert count(plain, BEST) == 0
    assert count(framed, BEST) > 2 * 2 * (120 + 90) * 3
    tint = tuple(np.round(0.4 * 100 + 0.6 * PALETTE[5].astype(float)).astype(int))
    assert count(framed, tint) == 30 * 60


@pytest.mark.parametrize("heads", [1, 3, 4, 5, 6, 7, 12, 16, 24])
def test_any_number_of_heads(heads: int) -> None:
    pixels = sheet(heads)
    assert len(set(_colors(heads))) == heads
    assert 0.5 < pixels.shape[1] / pixels.shape[0] < 5


@pytest.mark.parametrize("size", [(1200, 60), (60, 1200), (3000, 2000), (1, 1)])
def test_any_aspect(size: tuple[int, int]) -> None:
    """Wide images stand in few columns, tall ones in many; no sheet is a strip."""
    pixels = sheet(size=size)
    assert 0.3 < pixels.shape[1] / pixels.shape[0] < 5


def test_a_map_without_any_contrast() -> None:
    pixels = attention_sheet(Image.new("RGB", (40, 40)), np.full((2, 4, 4), 0.05), 0.6, title="", tile_px=40)
    assert np.isfinite(np.asarray(pixels)).all()


@pytest.mark.parametrize(
    ("groups", "aspect", "columns"), [((4, 8, 8), 1.3, 4), ((6, 6, 6), 1.3, 6), ((6, 12, 12), 1.3, 6)]
)
def test_heads_fill_their_rows(groups: tuple[int, ...], aspect: float, columns: int) -> None:
    assert _columns(groups, aspect) == columns

"""From attention maps to masks and their Jaccard similarity, counted in patches instead of pixels.

A head's mask is constant within a patch. So its overlap with a true mask is a sum, over the patches it keeps, of the
true mask's pixels there: exact integers, and a table (patches, values of the mask) instead of an image a head.

Keeping a share of the mass is as in DINO's visualize_attention.py: sort the patches of a head ascending, sum up, keep
those from which on the sum exceeds 1 - share. That is the smallest set of patches with at least that share: the patch
at the boundary is kept; of equal patches at the boundary the later ones in reading order are kept. In float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ssl_bench.datasets.indexed_png import VOID, Mask

BOX_AREA = 0.5
"""Share of the image in the center box, which has the image's own aspect."""

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


def keep_mass(maps: Floats, share: float) -> NDArray[np.bool_]:
    """The smallest set of patches with at least `share` of each map's mass, same shape (..., patches) as `maps`.

    Maps need not sum to 1. See the module's docstring for ties and the boundary.
    """
    order = np.argsort(maps, axis=-1, kind="stable")
    ascending = np.take_along_axis(maps, order, axis=-1)
    ascending = ascending / ascending.sum(axis=-1, keepdims=True)
    kept = np.cumsum(ascending, axis=-1) > 1 - share
    kept[..., -1] = True  # where share is tiny and the sum rounds to just below 1
    result = np.empty_like(kept)
    np.put_along_axis(result, order, kept, axis=-1)
    return result


def joined(mask: Mask) -> Mask:
    """Every class or object as 1: the foreground against the background, 0; void stays void."""
    return np.where((mask == 0) | (mask == VOID), mask, 1).astype(np.uint8)


def true_values(mask: Mask) -> list[int]:
    """The classes or objects in a mask, in order; none for an image of background and void alone."""
    return [value for value in np.unique(mask).tolist() if value not in (0, VOID)]


def pixels_in_patches(mask: Mask, grid: tuple[int, int]) -> Counts:
    """(patches, 256): how many pixels of each value lie in each patch of `grid` (rows, columns) laid over the mask.

    A pixel belongs to the patch that holds its center: the nearest upsampling of a patch mask to the mask's size.
    """
    rows, columns = (_patch_of_pixel(pixels, parts) for pixels, parts in zip(mask.shape, grid, strict=True))
    cells = (rows[:, None] * grid[1] + columns) * 256 + mask
    counts: Counts = np.bincount(cells.ravel(), minlength=grid[0] * grid[1] * 256).reshape(-1, 256)
    return counts


def upsampled(patches: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Values of patches (rows, columns) at `size` (height, width), each pixel as the patch that holds its center."""
    rows, columns = (_patch_of_pixel(px, parts) for px, parts in zip(size, patches.shape, strict=True))
    return patches[rows[:, None], columns]


def jaccards(kept: NDArray[np.bool_], counts: Counts, values: list[int]) -> Floats:
    """(masks, predictions): |kept and true| / |kept or true| in pixels that are not void, for each of `values`.

    `kept` (predictions, patches), `counts` (patches, 256) of `pixels_in_patches`. Pixels of another class or object
    count as background.
    """
    not_void = counts.sum(axis=1) - counts[:, VOID]
    true = counts[:, values]
    overlap = kept.astype(np.int64) @ true
    union = (kept @ not_void)[:, None] + true.sum(axis=0) - overlap
    found: Floats = (overlap / union).T
    return found


def box_jaccards(mask: Mask, values: list[int]) -> Floats:
    """(masks, 2): Jaccard of the whole image and of the center box with each of `values`, pixels of void left out.

    The box has `BOX_AREA` of the image and its aspect: pixels whose centers are nearer to the image's center than
    sqrt(BOX_AREA) / 2 of height and width.
    """
    inside = [np.abs((np.arange(px) + 0.5) / px - 0.5) < math.sqrt(BOX_AREA) / 2 for px in mask.shape]
    everywhere, boxed = (np.bincount(part.ravel(), minlength=256) for part in (mask, mask[np.ix_(*inside)]))
    found = []
    for value in values:
        size, seen = everywhere[value], boxed[value]
        not_void, in_box = everywhere.sum() - everywhere[VOID], boxed.sum() - boxed[VOID]
        found.append((size / not_void, seen / (size + in_box - seen)))
    return np.array(found, np.float64).reshape(len(values), 2)


@dataclass(frozen=True)
class ImageScores:
    """Jaccard similarities of one image, each in 0..1: rows are its true masks."""

    heads: Floats
    """(masks, heads)."""
    mean_map: Floats
    """(masks,): the mask of the mean of the heads' maps."""
    boxes: Floats
    """(masks, 2): whole image, center box."""


def score_image(maps: Floats, mask: Mask, values: list[int], share: float) -> ImageScores:
    """Scores of one image from `maps` (heads, rows, columns), at the mask's own resolution."""
    flat = maps.reshape(len(maps), -1)
    with_mean = np.concatenate([flat, flat.mean(axis=0, keepdims=True)])
    scores = jaccards(keep_mass(with_mean, share), pixels_in_patches(mask, maps.shape[1:]), values)
    return ImageScores(scores[:, :-1], scores[:, -1], box_jaccards(mask, values))


@dataclass(frozen=True)
class SetScores:
    """(images,) each: the mean over an image's masks, in 0..1. What is reported is their mean over images."""

    best_head: Floats
    best_single_head: Floats
    """Of the one head that is best over the whole set."""
    single_head: int
    """Which, counted from 0."""
    average_head: Floats
    """What a head drawn at random is expected to score."""
    mean_map: Floats
    whole_image: Floats
    center_box: Floats


def score_set(images: list[ImageScores], best_of: Literal["mask", "image"]) -> SetScores:
    """Scores of every image. `best_of`: a head for each true mask (the authors' rule) or one for the image."""
    by_head = np.array([scores.heads.mean(axis=0) for scores in images])
    if best_of == "mask":
        best = np.array([scores.heads.max(axis=1).mean() for scores in images])
    else:
        best = by_head.max(axis=1)
    boxes = np.array([scores.boxes.mean(axis=0) for scores in images])
    single_head = int(by_head.mean(axis=0).argmax())
    return SetScores(
        best_head=best,
        best_single_head=by_head[:, single_head],
        single_head=single_head,
        average_head=by_head.mean(axis=1),
        mean_map=np.array([scores.mean_map.mean() for scores in images]),
        whole_image=boxes[:, 0],
        center_box=boxes[:, 1],
    )


def _patch_of_pixel(pixels: int, patches: int) -> Counts:
    return (2 * np.arange(pixels, dtype=np.int64) + 1) * patches // (2 * pixels)

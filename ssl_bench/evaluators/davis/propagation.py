"""Label propagation in video with frozen patch features (Jabri et al. 2020, arXiv 2006.14613; as in DINO, 2104.14294).

    affinity of target patch i and source patch j    a_ij = exp(cos(i, j) / temperature), j within `radius` of i
    kept                                             the `top_k` largest of each i over all source frames together
    soft label of i                                  sum_j a_ij label_j / sum_j a_ij

The steps are those of the authors' eval_video_segmentation.py. It computes all pairs of patches, then multiplies by a
0/1 mask of neighbors; here a tile of the target meets only the patches within `radius` of the tile, so that time and
memory follow the neighborhood and not the square of the frame. What differs in the result: of equal affinities at
rank `top_k` the script keeps all, we keep the first ones, by source, row and column.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn.functional import interpolate

TILE = 13
"""Side, in patches, of the tiles of the target: small ones waste fewer products, large ones multiply faster."""
GROUP = 32
"""Patches that share one maximum when the largest are looked for: a 1/32 of the products is searched."""


def propagate(
    target: Tensor,
    sources: Sequence[Tensor],
    labels: Sequence[Tensor],
    *,
    radius: int | None = 12,
    top_k: int = 5,
    temperature: float = 0.1,
) -> Tensor:
    """Soft labels (rows, columns, channels) of a target frame: weighted means of labels of the sources.

    `target` (rows, columns, dim) and each of `sources`, of the same shape, are l2-normalized patch features; `labels`
    has one tensor (rows, columns, channels) a source. The neighborhood is the square of side 2 radius + 1 around the
    patch; `radius` None is the whole frame.
    """
    rows, columns, dim = target.shape
    assert sources
    assert len(sources) == len(labels)
    assert all(source.shape == target.shape for source in sources)
    reach = max(rows, columns) if radius is None else radius
    result = target.new_empty(rows, columns, labels[0].shape[-1])
    for row in _tiles(rows):
        for column in _tiles(columns):
            near = (_widened(row, reach, rows), _widened(column, reach, columns))
            keys = torch.stack([source[near] for source in sources]).view(-1, dim)
            label = torch.stack([one[near] for one in labels]).view(len(keys), -1)
            cosines = target[row, column].reshape(-1, dim) @ keys.T
            outside = _outside((row, column), near, reach, target.device)
            cosines.view(len(outside), len(sources), -1).masked_fill_(outside[:, None], torch.finfo(cosines.dtype).min)
            best, index = largest(cosines, min(top_k, len(keys)))
            weights = (best / temperature).softmax(dim=1)  # the kept exp(cos / temperature) over their sum
            mixed = (weights[:, :, None] * label[index]).sum(dim=1)
            result[row, column] = mixed.view(row.stop - row.start, column.stop - column.start, -1)
    return result


def largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of finite `values` (rows, n), in order, and their indices; of equal ones the first.

    In two steps, because few groups of neighboring columns can hold them: the k groups with the largest maxima.
    """
    count, n = values.shape
    groups = -(-n // GROUP)
    if groups <= k:
        return _first_largest(values.clone(), k)
    whole = n // GROUP
    maxima = values.new_empty(count, groups)
    maxima[:, :whole] = values[:, : whole * GROUP].view(count, whole, GROUP).amax(dim=2)
    if whole < groups:
        maxima[:, whole] = values[:, whole * GROUP :].amax(dim=1)
    chosen = _first_largest(maxima, k)[1].sort(dim=1).values  # in order, so that equal values stay by index
    columns = (chosen[:, :, None] * GROUP + torch.arange(GROUP, device=values.device)).flatten(1)
    candidates = values.gather(1, columns.clamp_max(n - 1)).masked_fill_(columns >= n, -torch.inf)
    best, place = _first_largest(candidates, k)
    return best, columns.gather(1, place)


def _first_largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """As `largest`, for few columns: k searches for the maximum, whose index is the first one's. Spoils `values`."""
    found = []
    for _ in range(k):
        best, index = values.max(dim=1, keepdim=True)
        values.scatter_(1, index, -torch.inf)
        found.append((best, index))
    return torch.cat([best for best, _ in found], dim=1), torch.cat([index for _, index in found], dim=1)


def hard_labels(soft: Tensor, height: int, width: int) -> Tensor:
    """(rows, columns, channels) -> (height, width) uint8: the channel that is largest after upsampling.

    Bilinear to `height` x `width`; each channel that is above 0 anywhere is stretched to [0, 1] over the frame
    (`norm_mask` of the script, which gives small objects their chance); equal channels: the first. A channel of one
    positive value everywhere is NaN in the script, which its argmax takes for the largest: so it is here.
    """
    largest_yet = torch.full((height, width), -torch.inf, dtype=soft.dtype, device=soft.device)
    labels = torch.zeros((height, width), dtype=torch.uint8, device=soft.device)
    for channel in range(soft.shape[-1]):  # one at a time: 255 objects of 480p at once are 400 MB
        level = interpolate(soft[None, None, :, :, channel], size=(height, width), mode="bilinear")[0, 0]
        lowest, highest = level.aminmax()
        if highest > 0:
            level = (level - lowest) / (highest - lowest) if highest > lowest else torch.full_like(level, torch.inf)
        larger = level > largest_yet
        labels[larger] = channel
        largest_yet = torch.where(larger, level, largest_yet)
    return labels


def _tiles(length: int) -> list[slice]:
    """Slices of nearly equal length, at most `TILE`, that cover 0 .. length - 1."""
    count = -(-length // TILE)
    ends = [length * index // count for index in range(count + 1)]
    return [slice(low, high) for low, high in pairwise(ends)]


def _widened(tile: slice, reach: int, length: int) -> slice:
    return slice(max(0, tile.start - reach), min(length, tile.stop + reach))


def _outside(tile: tuple[slice, slice], near: tuple[slice, slice], reach: int, device: torch.device) -> Tensor:
    """(target patches, source patches) of a tile and its surroundings: true where the source is out of reach."""
    far = []
    for axis in zip(tile, near, strict=True):
        targets, sources = (torch.arange(part.start, part.stop, device=device) for part in axis)
        far.append((targets[:, None] - sources).abs() > reach)
    either = far[0][:, None, :, None] | far[1][None, :, None, :]
    return either.flatten(2).flatten(0, 1)

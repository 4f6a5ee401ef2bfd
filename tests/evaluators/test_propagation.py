"""Label propagation against the released steps written densely, and its parts against cases worked by hand.

The oracle repeats eval_video_segmentation.py of DINO step by step: all pairs of patches, a 0/1 mask of neighbors, the
smallest of the top values as threshold. It has no order among ties, so frames are random or checked outside of ties.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from ssl_bench.evaluators.davis.propagation import GROUP, TILE, hard_labels, largest, propagate


def released_step(
    target: Tensor, sources: list[Tensor], labels: list[Tensor], radius: int, top_k: int, temperature: float
) -> Tensor:
    """`label_propagation` and `restrict_neighborhood`, densely, for grids (rows, columns, dim)."""
    rows, columns, dim = target.shape
    near_row = (torch.arange(rows)[:, None] - torch.arange(rows)).abs() <= radius
    near_column = (torch.arange(columns)[:, None] - torch.arange(columns)).abs() <= radius
    neighbors = (near_row[:, None, :, None] & near_column[None, :, None, :]).reshape(rows * columns, -1)
    flat = functional.normalize(target.reshape(-1, dim), dim=1)
    affinity = torch.cat(
        [
            (torch.exp(flat @ functional.normalize(source.reshape(-1, dim), dim=1).T / temperature) * neighbors).T
            for source in sources
        ]
    )  # (sources * patches, target patches)
    kept = affinity.topk(min(top_k, len(affinity)), dim=0).values.amin(dim=0)
    affinity[affinity < kept] = 0
    affinity = affinity / affinity.sum(dim=0, keepdim=True)
    stacked = torch.cat([one.reshape(rows * columns, -1) for one in labels])
    return (stacked.T @ affinity).T.reshape(rows, columns, -1)


def random_case(
    rows: int,
    columns: int,
    sources: int,
    channels: int,
    dim: int = 6,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(sources + 1, rows, columns, dim, generator=generator, dtype=dtype)
    labels = torch.rand(sources, rows, columns, channels, generator=generator, dtype=dtype)
    features = functional.normalize(features, dim=-1)
    return features[0], list(features[1:]), list(labels)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 2 * TILE + 2),
    columns=st.integers(1, 2 * TILE + 2),
    sources=st.integers(1, 4),
    channels=st.integers(1, 5),
    radius=st.integers(1, 14),
    top_k=st.integers(1, 9),
    temperature=st.sampled_from([0.05, 0.1, 1.0]),
    seed=st.integers(0, 99),
)
def test_a_step_is_the_dense_one(
    rows: int, columns: int, sources: int, channels: int, radius: int, top_k: int, temperature: float, seed: int
) -> None:
    """In float64, where no two affinities of random features tie: grids smaller and larger than tiles and windows."""
    case = random_case(rows, columns, sources, channels, seed=seed)
    ours = propagate(*case, radius=radius, top_k=top_k, temperature=temperature)
    torch.testing.assert_close(ours, released_step(*case, radius, top_k, temperature), rtol=0, atol=1e-12)


def test_the_default_options_are_the_released_ones() -> None:
    case = random_case(30, 17, 8, 3, dim=32, dtype=torch.float32)
    torch.testing.assert_close(propagate(*case), released_step(*case, 12, 5, 0.1), rtol=0, atol=1e-6)


def test_no_radius_is_the_whole_frame() -> None:
    case = random_case(4, 30, 2, 2)
    ours = propagate(*case, radius=None)
    torch.testing.assert_close(ours, released_step(*case, 30, 5, 0.1), rtol=0, atol=1e-12)


def test_windows_of_few_patches_in_a_large_frame() -> None:
    """9 patches within reach, fewer than `top_k` at the corners, and most groups of a tile have none of them."""
    case = random_case(3 * TILE, 3 * TILE, 1, 2)
    ours = propagate(*case, radius=1, top_k=5)
    torch.testing.assert_close(ours, released_step(*case, 1, 5, 0.1), rtol=0, atol=1e-12)


def test_small_temperatures_do_not_overflow() -> None:
    """exp(1 / 0.005) is not a float32; the weights, relative to the largest, are."""
    target, sources, labels = random_case(3, 3, 1, 2, dtype=torch.float32)
    ours = propagate(target, [target, *sources], [labels[0], labels[0] * 0], temperature=0.005)
    assert torch.isfinite(ours).all()


def test_worked_by_hand() -> None:
    """Two sources of 1 x 3 patches in the plane, cosines 1, 0 and -1, temperature 1, the two best of radius 1.

    Left patch: sees cosines 1, 0 (first source) and 0, 0: keeps 1 and the first 0, weights e / (e + 1), 1 / (e + 1).
    Right patch: sees 0, -1 and 0, -1: keeps both 0, half each.
    """
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    target = torch.stack([east, east, east])[None]
    sources = [torch.stack([east, north, -east])[None], torch.stack([north, north, -east])[None]]
    labels = [torch.tensor([[[10.0], [20.0], [30.0]]]), torch.tensor([[[1.0], [2.0], [3.0]]])]
    ours = propagate(target, sources, labels, radius=1, top_k=2, temperature=1.0)
    share = torch.e / (torch.e + 1)
    assert ours[0, 0, 0].item() == pytest.approx(10 * share + 20 * (1 - share))
    assert ours[0, 2, 0].item() == pytest.approx((20 + 2) / 2)


def test_equal_affinities_are_taken_by_source_row_and_column() -> None:
    """All features equal: each patch gets the mean of the first five of its window in the first source."""
    rows, columns, radius = 9, 33, 2
    same = functional.normalize(torch.ones(rows, columns, 4), dim=-1)
    numbers = torch.arange(rows * columns, dtype=torch.float32).view(rows, columns, 1)
    ours = propagate(same, [same, same], [numbers, -numbers], radius=radius, top_k=5)
    for row in range(rows):
        for column in range(columns):
            window = numbers[max(0, row - radius) : row + radius + 1, max(0, column - radius) : column + radius + 1]
            assert ours[row, column, 0].item() == pytest.approx(window.flatten()[:5].mean().item(), rel=1e-5)


@pytest.mark.parametrize("n", [1, 5, 31, 32, 33, 5 * GROUP, 6 * GROUP, 6 * GROUP + 7, 900])
@pytest.mark.parametrize("values", [2, 50, 10**6])
def test_the_largest_are_those_of_a_stable_sort(n: int, values: int) -> None:
    table = torch.randint(values, (40, n), generator=torch.Generator().manual_seed(n)).float()
    table[3, n // 2 :] = torch.finfo().min
    kept, k = table.clone(), min(5, n)
    order = table.sort(dim=1, descending=True, stable=True)
    best, index = largest(table, k)
    assert torch.equal(best, order.values[:, :k])
    assert torch.equal(index, order.indices[:, :k])
    assert torch.equal(table, kept)


def released_decision(soft: Tensor, patch_px: int) -> Tensor:
    """Upsampling, `norm_mask` and the maximum of the released script, for labels (rows, columns, channels)."""
    up = functional.interpolate(
        soft.permute(2, 0, 1)[None], scale_factor=patch_px, mode="bilinear", align_corners=False,
        recompute_scale_factor=False,
    )[0]  # fmt: skip
    for channel in range(len(up)):
        if up[channel].max() > 0:
            up[channel] -= up[channel].min()
            up[channel] /= up[channel].max()
    return up.max(dim=0).indices


@pytest.mark.parametrize("patch_px", [5, 8, 16])
@pytest.mark.parametrize("case", ["random", "an object that is gone", "background only", "an object everywhere"])
def test_hard_labels_are_the_released_ones(case: str, patch_px: int) -> None:
    soft = torch.rand(6, 9, 4, generator=torch.Generator().manual_seed(1)).softmax(dim=2)
    if case == "an object that is gone":
        soft[:, :, 2] = 0
    elif case != "random":
        soft = torch.zeros(6, 9, 4)
        soft[:, :, 0 if case == "background only" else 2] = 1
    ours = hard_labels(soft, 6 * patch_px, 9 * patch_px)
    assert ours.dtype == torch.uint8
    assert torch.equal(ours.long(), released_decision(soft, patch_px))

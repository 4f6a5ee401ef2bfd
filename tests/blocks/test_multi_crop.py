"""Views of several sizes, against loops over single views and pairs; sizes in whole patches."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ssl_bench.blocks.multi_crop import features_of_views, mean_over_pairs
from ssl_bench.blocks.patch_sizes import NotWholePatches, multi_crop_px, view_px
from ssl_bench.method import Situation


def test_features_are_those_of_each_view_alone_in_order() -> None:
    views = [torch.randn(3, 3, side, side, dtype=torch.float64) for side in (8, 8, 4, 4, 4, 8)]
    backbone = nn.Sequential(nn.Conv2d(3, 5, 3, dtype=torch.float64), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    expected = torch.cat([backbone(view) for view in views])
    torch.testing.assert_close(features_of_views(backbone, views), expected, rtol=0, atol=1e-12)


def test_mean_over_pairs_of_different_views() -> None:
    targets, predictions = torch.randn(2, 4, 6, dtype=torch.float64), torch.randn(5, 4, 6, dtype=torch.float64)
    pairs = [(t, p) for t in range(2) for p in range(5) if t != p]
    expected = sum(float(targets[t, b] @ predictions[p, b]) for t, p in pairs for b in range(4)) / (len(pairs) * 4)
    assert float(mean_over_pairs(targets, predictions)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("image_px", "patch_px", "given", "expected"),
    [
        (224, 16, (None, None), (224, 96)),
        (224, None, (None, None), (224, 96)),
        (32, 4, (None, None), (32, 12)),  # 13.7 px: three and a half patches
        (64, None, (None, None), (64, 24)),
        (64, 8, (48, 16), (48, 16)),
    ],
)
def test_sizes_of_views(
    image_px: int, patch_px: int | None, given: tuple[int | None, int | None], expected: tuple[int, int]
) -> None:
    situation = Situation(image_px=image_px, train_images=100, patch_px=patch_px, batch_size=4)
    assert multi_crop_px(*given, situation) == expected
    assert view_px(given[0], situation) == expected[0]


def test_sizes_that_patches_do_not_divide_are_refused() -> None:
    situation = Situation(image_px=64, train_images=100, patch_px=16, batch_size=4)
    with pytest.raises(NotWholePatches, match=r"a local view \(method.local_crop_px\) of 20 px"):
        multi_crop_px(None, 20, situation)
    with pytest.raises(NotWholePatches, match=r"a view \(method.crop_px\) of 40 px"):
        view_px(40, situation)

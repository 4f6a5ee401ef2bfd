"""Feature maps: sizes of the papers' stages, and values against timm's own passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ssl_bench.errors import UserError
from ssl_bench_plugins.backbones.deit import DeitTi16, ViTSettings
from ssl_bench_plugins.backbones.resnet import ResNet18
from ssl_bench_plugins.backbones.timm_any import TimmAny, TimmSettings
from ssl_bench_plugins.backbones.vit_tokens import quarters


def timms(name: str, image_px: int = 64) -> TimmAny:
    torch.manual_seed(0)
    return TimmAny(TimmSettings(name=name), image_px=image_px).eval()


@pytest.mark.parametrize(("stem", "first"), [("imagenet", 4), ("cifar", 1)])
def test_stages_of_a_residual_network(stem: Any, first: int) -> None:
    """He et al. (2015), table 1: strides 4, 8, 16 and 32; each stage's output as its last block leaves it."""
    torch.manual_seed(0)
    backbone = ResNet18(ResNet18.Config(width=0.125, stem=stem), image_px=64).eval()
    images = torch.randn(2, 3, 64, 96)
    left: list[Tensor] = []
    for number in (1, 2, 3, 4):
        getattr(backbone.network, f"layer{number}")[-1].register_forward_hook(lambda *given: left.append(given[2]))
    with torch.no_grad():
        maps = backbone.feature_maps(images)
        expected, features = list(left), backbone(images)
        torch.testing.assert_close(features, maps[3].mean(dim=(2, 3)))
        torch.testing.assert_close(features, backbone.network(images))
    strides = [first * 2**stage for stage in range(4)]
    assert [tuple(one.shape) for one in maps] == [
        (2, 8 * 2**stage, 64 // stride, 96 // stride) for stage, stride in enumerate(strides)
    ]
    for one, other in zip(maps, expected, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    ("depth", "expected"), [(12, [2, 5, 8, 11]), (24, [5, 11, 17, 23]), (6, [1, 2, 4, 5]), (2, [0, 1]), (1, [0])]
)
def test_quarters_of_the_depth(depth: int, expected: list[int]) -> None:
    assert quarters(depth) == expected


def test_maps_of_a_transformer_are_outputs_of_its_blocks() -> None:
    torch.manual_seed(0)
    backbone = DeitTi16(ViTSettings(patch_px=4, dim=32, depth=8, heads=2), image_px=16).eval()
    images = torch.randn(2, 3, 8, 24)
    with torch.no_grad():
        maps = backbone.feature_maps(images)
        expected = backbone.network.forward_intermediates(images, [1, 3, 5, 7], intermediates_only=True)
    assert [tuple(one.shape) for one in maps] == 4 * [(2, 32, 2, 6)]
    for one, other in zip(maps, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "sides", "channels"),
    [
        ("test_convnext", [16, 8, 4, 2], [24, 32, 48, 64]),
        ("test_resnet", [32, 16, 8, 4, 2], [32, 32, 48, 192, 96]),
        ("swin_tiny_patch4_window7_224", [16, 8, 4, 2], [96, 192, 384, 768]),
        ("xcit_nano_12_p16_224", 4 * [4], 4 * [128]),
        ("vit_tiny_patch16_224", 4 * [4], 4 * [192]),
    ],
)
def test_maps_of_timms_networks(name: str, sides: list[int], channels: list[int]) -> None:
    backbone, images = timms(name), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        maps = backbone.feature_maps(images)
        last = backbone.network.forward_intermediates(images, 1, intermediates_only=True)[0]
    assert "feature_maps" in backbone.supports
    assert [tuple(one.shape) for one in maps] == [(2, c, side, side) for c, side in zip(channels, sides, strict=True)]
    torch.testing.assert_close(maps[-1], last, atol=1e-5, rtol=1e-5)


def test_a_size_that_does_not_fit_is_one_message() -> None:
    with pytest.raises(UserError, match="an image side of 40 px"):
        timms("vit_tiny_patch16_224").feature_maps(torch.randn(1, 3, 40, 64))
    with pytest.raises(UserError, match="cait_xxs24_224 fails on images of 32 x 32 px"):
        timms("cait_xxs24_224").feature_maps(torch.randn(1, 3, 32, 32))

"""Tokens of transformers: whole, masked and kept, against timm's own passes and a pass written patch by patch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from ssl_bench.errors import UserError
from ssl_bench_plugins.backbones.deit import DeitTi16, ViTSettings
from ssl_bench_plugins.backbones.resnet import ResNet18
from ssl_bench_plugins.backbones.timm_any import TimmAny, TimmSettings

DIM = 32


def tiny(drop_path: float = 0.0, **settings: Any) -> DeitTi16:
    """16 patches of 4 px, three blocks, in float64."""
    torch.manual_seed(0)
    config = ViTSettings(patch_px=4, dim=DIM, depth=3, heads=2, **settings)
    return DeitTi16(config, image_px=16, drop_path=drop_path).double().eval()


def pictures(batch: int = 2, height: int = 16, width: int = 16) -> Tensor:
    return torch.randn(batch, 3, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def slow_pass(
    backbone: DeitTi16, image: Tensor, mask: list[bool], mask_token: Tensor | None, keep: list[int]
) -> Tensor:
    """(3, 16, 16) -> (1 + kept, dim): one image, every patch cut out by hand, the network's own blocks on them."""
    vit = backbone.network
    weight, bias = vit.patch_embed.proj.weight.flatten(1), vit.patch_embed.proj.bias
    sequence = [vit.cls_token[0, 0] + vit.pos_embed[0, 0]]
    for patch in keep:
        row, column = divmod(patch, 4)
        pixels = image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4].flatten()
        embedding = mask_token if mask[patch] else functional.linear(pixels, weight, bias)
        sequence.append(embedding + vit.pos_embed[0, 1 + patch])
    return vit.norm(vit.blocks(torch.stack(sequence)[None]))[0]


@pytest.mark.parametrize("positions", ["timm", "dino"])
def test_whole_tokens_are_those_of_the_forward_pass(positions: Any) -> None:
    backbone, images = tiny(positions=positions), pictures()
    with torch.no_grad():
        tokens, expected = backbone.tokens(images), backbone.network.forward_features(images)
        torch.testing.assert_close(tokens.cls, expected[:, 0])
        torch.testing.assert_close(tokens.cls, backbone(images))
        torch.testing.assert_close(tokens.patches, expected[:, 1:])
        assert tokens.registers.shape == (2, 0, DIM)
        wide = backbone.tokens(pictures(height=8, width=24))
        assert wide.grid == (2, 6)
        assert backbone.patch_tokens(pictures(height=8, width=24)).shape == (2, DIM, 2, 6)
        torch.testing.assert_close(
            backbone.patch_tokens(pictures(height=8, width=24))[:, :, 1, 2], wide.patches[:, 1 * 6 + 2]
        )


@pytest.mark.parametrize("case", ["mask", "keep", "both"])
def test_masked_and_kept_patches_are_those_of_a_pass_patch_by_patch(case: str) -> None:
    backbone, images = tiny(), pictures()
    generator = torch.Generator().manual_seed(2)
    mask_token = torch.randn(DIM, dtype=torch.float64, generator=generator).requires_grad_()
    mask = torch.rand(2, 16, generator=generator) < 0.4
    keep = torch.stack([torch.randperm(16, generator=generator)[:5] for _ in range(2)])
    if case == "mask":
        tokens = backbone.tokens(images, mask=mask, mask_token=mask_token)
        keep = torch.arange(16).expand(2, -1)
    elif case == "keep":
        tokens = backbone.tokens(images, keep=keep)
        mask = torch.zeros_like(mask)
    else:
        tokens = backbone.tokens(images, mask=mask, mask_token=mask_token, keep=keep)
    expected = torch.stack(
        [slow_pass(backbone, images[i], mask[i].tolist(), mask_token, keep[i].tolist()) for i in range(2)]
    )
    assert tokens.cls is not None
    torch.testing.assert_close(torch.cat([tokens.cls[:, None], tokens.patches], dim=1), expected)
    assert tokens.grid == (4, 4)
    if case == "keep":
        return
    direction = torch.randn(tokens.patches.shape, dtype=torch.float64, generator=generator)
    (found,) = torch.autograd.grad((tokens.patches * direction).sum(), mask_token, retain_graph=True)
    (slow,) = torch.autograd.grad((expected[:, 1:] * direction).sum(), mask_token)
    torch.testing.assert_close(found, slow)
    assert found.any()


@pytest.mark.parametrize("positions", ["timm", "dino"])
def test_kept_patches_keep_resampled_positions(positions: Any) -> None:
    """At another size: the positions of all patches are resampled, then chosen."""
    backbone, images = tiny(positions=positions), pictures(height=8, width=24)
    keep = torch.tensor([[11, 0, 5], [3, 4, 10]])
    with torch.no_grad():
        tokens = backbone.tokens(images, keep=keep)
        inputs: list[Tensor] = []
        backbone.network.blocks[0].norm1.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        backbone.tokens(images)
        chosen = [torch.cat([one[:1], one[1:][order]]) for one, order in zip(inputs[0], keep, strict=True)]
        expected = backbone.network.norm(backbone.network.blocks(torch.stack(chosen)))
    torch.testing.assert_close(tokens.patches, expected[:, 1:])


def test_a_mask_reaches_patches_in_bf16() -> None:
    """Embeddings are bf16 under autocast, the mask token float32: no type is promoted."""
    backbone = tiny().float()
    mask_token = torch.zeros(DIM, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        tokens = backbone.tokens(pictures().float(), mask=torch.eye(2, 16, dtype=torch.bool), mask_token=mask_token)
    tokens.patches.float().square().sum().backward()
    assert mask_token.grad is not None
    assert mask_token.grad.dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "has_cls", "registers", "masks"),
    [
        ("vit_tiny_patch16_224", True, 0, True),
        ("deit_tiny_distilled_patch16_224", True, 1, True),
        ("vit_small_patch16_dinov3", True, 4, False),
        ("test_vit4", False, 1, True),
        ("vit_base_patch16_siglip_224", False, 0, True),
        ("xcit_nano_12_p16_224", True, 0, False),
    ],
)
def test_tokens_of_timms_networks(name: str, has_cls: bool, registers: int, masks: bool) -> None:
    torch.manual_seed(0)
    backbone = TimmAny(TimmSettings(name=name), image_px=32).eval()
    images = torch.randn(2, 3, 32, 48)
    with torch.no_grad():
        tokens, whole = backbone.tokens(images), backbone.network.forward_features(images)
        assert tokens.grid == (2, 3)
        parts = [*([tokens.cls[:, None]] if tokens.cls is not None else []), tokens.registers, tokens.patches]
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-5, rtol=1e-5)
        assert (tokens.cls is not None, tokens.registers.shape[1]) == (has_cls, registers)
        assert ("masking" in backbone.supports) == masks
        keep = torch.tensor([[5, 1], [0, 4]])
        if masks:
            assert backbone.tokens(images, keep=keep).patches.shape == (2, 2, backbone.feature_dim)
        else:
            with pytest.raises(NotImplementedError, match="positions of the whole image"):
                backbone.tokens(images, keep=keep)


def test_a_network_without_patches_refuses() -> None:
    with pytest.raises(NotImplementedError, match="ResNet18 has no patch tokens"):
        ResNet18(ResNet18.Config(width=0.125), image_px=16).tokens(torch.zeros(1, 3, 16, 16))


MASK, TOKEN = torch.zeros(2, 16, dtype=torch.bool), torch.zeros(DIM, dtype=torch.float64)


@pytest.mark.parametrize(
    ("selection", "words"),
    [
        ({"mask": MASK}, "mask without mask_token"),
        ({"mask_token": TOKEN}, "mask_token without mask"),
        ({"mask": MASK.float(), "mask_token": TOKEN}, r"mask is float32 of shape \(2, 16\): give bool"),
        ({"mask": MASK[:, :15], "mask_token": TOKEN}, r"\(2, 15\).*\(batch, patches\) = \(2, 16\)"),
        ({"mask": MASK.view(2, 4, 4), "mask_token": TOKEN}, r"mask is bool of shape \(2, 4, 4\)"),
        (
            {"mask": MASK, "mask_token": TOKEN[None]},
            r"mask_token is .*\(1, 32\): give floats of shape \(dim,\) = \(32,",
        ),
        ({"mask": MASK, "mask_token": TOKEN.long()}, "mask_token is int64"),
        ({"keep": torch.zeros(2, 3)}, "keep is float32"),
        ({"keep": torch.zeros(3, 3, dtype=torch.int64)}, r"keep is int64 of shape \(3, 3\)"),
        ({"keep": torch.zeros(2, 0, dtype=torch.int64)}, r"keep is int64 of shape \(2, 0\)"),
        ({"keep": torch.tensor([[0, 16], [1, 2]])}, "keep names patches 0 to 16: the image has 16, from 0 to 15"),
        ({"keep": torch.tensor([[0, -1], [1, 2]])}, "keep names patches -1 to 2"),
    ],
)
def test_what_does_not_fit_is_one_message(selection: dict[str, Tensor], words: str) -> None:
    with pytest.raises(UserError, match=words):
        tiny().tokens(pictures(), **selection)

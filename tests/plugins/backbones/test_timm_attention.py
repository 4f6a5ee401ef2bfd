"""Attention of timm's networks against the matrix that their own slow attention writes out; refusals with reasons."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ssl_bench.errors import UserError
from ssl_bench.evaluation.evaluate import build_evaluators, refuse_unsupported
from ssl_bench_plugins.backbones.deit import DeitTi16, ViTSettings
from ssl_bench_plugins.backbones.timm_any import TimmAny, TimmSettings

SHOWN = {
    "vit_small_patch16_224": 1,
    "deit_small_distilled_patch16_224": 2,
    "vit_small_patch14_reg4_dinov2": 5,
    "xcit_nano_12_p16_224": 1,
    "xcit_tiny_12_p8_224": 1,
    "vit_small_patch16_rope_224": 1,
}
"""Name and number of tokens before the patches."""


def build(name: str, image_px: int = 32) -> TimmAny:
    torch.manual_seed(0)
    if "patch14" in name:
        image_px = 28
    return TimmAny(TimmSettings(name=name), image_px=image_px).eval()


def last_attention(network: Any) -> Any:
    """The module that holds the last block's attention."""
    blocks = network.cls_attn_blocks if hasattr(network, "cls_attn_blocks") else network.blocks
    return blocks[-1].attn


class CountFused(TorchFunctionMode):
    """Counts the fused attentions that run inside."""

    count = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += function is functional.scaled_dot_product_attention
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "prefix"), SHOWN.items())
def test_attention_is_the_matrix_of_the_slow_attention(name: str, prefix: int) -> None:
    """timm's unfused attention hands softmax(QK^T / sqrt(d)) to its dropout: row 0 of it, without the first keys."""
    backbone = build(name).double()
    side = backbone.patch_px
    assert side is not None
    assert side == TimmAny.patch_px_for(TimmSettings(name=name), 32)
    images = torch.randn(2, 3, 3 * side, 2 * side, dtype=torch.float64)
    with torch.no_grad():
        found, tokens = backbone.attention(images), backbone.patch_tokens(images)
        module, seen = last_attention(backbone.network), []
        assert module.fused_attn
        module.fused_attn = False
        module.attn_drop.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        after = backbone.network.forward_features(images)
    (matrix,) = seen
    assert matrix.shape[-1] == prefix + 6
    torch.testing.assert_close(found, matrix[:, :, 0, prefix:].unflatten(2, (3, 2)), atol=1e-6, rtol=0)
    assert found.dtype == torch.float64
    torch.testing.assert_close(tokens.flatten(2).transpose(1, 2), after[:, prefix:], atol=1e-6, rtol=0)
    assert backbone.supports >= {"patch_tokens", "attention"}


def test_attention_of_xcit_written_out() -> None:
    """Per head, from the class attention's weights: the CLS query of the last class-attention block on the patches."""
    backbone = build("xcit_nano_12_p16_224").double()
    images = torch.randn(1, 3, 32, 48, dtype=torch.float64)
    with torch.no_grad():
        found = backbone.attention(images)[0]
        given: list[torch.Tensor] = []
        module = last_attention(backbone.network)
        module.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
        backbone.network(images)
        (tokens,) = given[0]
        heads, dim = module.num_heads, tokens.shape[1] // module.num_heads
        for head in range(heads):
            rows = slice(head * dim, (head + 1) * dim)
            query = module.q.weight[rows] @ tokens[0] + module.q.bias[rows]
            keys = [module.k.weight[rows] @ token + module.k.bias[rows] for token in tokens]
            weights = [torch.exp(query @ key / dim**0.5).item() for key in keys]
            expected = [weight / sum(weights) for weight in weights[1:]]
            assert found[head].flatten().tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["vit_small_patch16_224", "xcit_nano_12_p16_224", "vit_small_patch16_rope_224"])
def test_the_other_blocks_keep_their_fast_attention(name: str) -> None:
    """As many fused attentions as in a forward pass, but for the one that is written out where timm's is not run."""
    backbone, images = build(name), torch.randn(1, 3, 32, 32)
    flags = [module.fused_attn for module in backbone.modules() if hasattr(module, "fused_attn")]
    with torch.no_grad():
        with CountFused() as forward:
            backbone.network(images)
        with CountFused() as attention:
            backbone.attention(images)
    assert forward.count == (2 if "xcit" in name else 12)  # XCiT's cross-covariance is another attention
    assert forward.count - attention.count in (0, 1)
    assert flags == [module.fused_attn for module in backbone.modules() if hasattr(module, "fused_attn")]


@pytest.mark.parametrize("name", [*SHOWN, "vit_base_patch16_siglip_224", "vit_medium_patch16_reg4_gap_256"])
def test_features_are_those_of_timms_forward_pass(name: str) -> None:
    backbone = build(name)
    assert backbone.patch_px is not None
    images = torch.randn(2, 3, 2 * backbone.patch_px, 2 * backbone.patch_px)
    with torch.no_grad():
        torch.testing.assert_close(backbone(images), backbone.network(images), atol=1e-5, rtol=1e-5)
        if "attention" not in backbone.supports:
            assert "patch_tokens" in backbone.supports
            assert backbone.patch_tokens(images).shape == (2, backbone.feature_dim, 2, 2)
            with pytest.raises(NotImplementedError, match=r"has no CLS token"):
                backbone.attention(images)


@pytest.mark.parametrize(
    ("name", "words", "supports"),
    [
        ("swin_tiny_patch4_window7_224", "attends within windows and has no CLS token", set()),
        ("swinv2_tiny_window8_256", "attends within windows and has no CLS token", set()),
        ("resnet18", "is a ResNet, which has no CLS token that attends to patches", set()),
        ("convnext_atto", "is a ConvNeXt, which has no CLS token that attends to patches", set()),
        ("cait_xxs24_224", "ties its positions to images of one size", set()),
        ("beit_base_patch16_224", "ties its positions to images of one size", set()),
        ("vit_base_patch16_siglip_224", "has no CLS token", {"patch_tokens", "masking"}),
        ("vit_medium_patch16_gap_240", "has no CLS token", {"patch_tokens", "masking"}),
        (
            "eva02_tiny_patch14_224",
            "pools its patches, so that nothing trains its CLS token's last query",
            {"patch_tokens"},
        ),
        (
            "beit3_base_patch16_224",
            "pools its patches, so that nothing trains its CLS token's last query",
            {"patch_tokens", "masking"},
        ),
        ("vit_small_patch16_18x2_224", "ends in a ParallelThingsBlock", {"patch_tokens", "masking"}),
    ],
)
def test_refused_with_the_reason(name: str, words: str, supports: set[str]) -> None:
    size = 256 if "256" in name else 240 if "240" in name else 224
    with torch.device("meta"):
        backbone = TimmAny(TimmSettings(name=name), image_px=size)
    assert backbone.supports == supports | {"feature_maps"}
    evaluators = build_evaluators([("voc-jaccard", {})])
    with pytest.raises(UserError, match=rf"'voc-jaccard' needs attention, which timm does not have: {name} .*{words}"):
        refuse_unsupported(backbone, "timm", evaluators)


@pytest.mark.parametrize("name", ["vit_small_patch16_224", "xcit_nano_12_p16_224", "vit_small_patch16_rope_224"])
def test_sizes_that_patches_do_not_divide_are_answered_with_sizes(name: str) -> None:
    backbone = build(name)
    for images in (torch.randn(1, 3, 40, 32), torch.randn(1, 3, 32, 40)):
        for read in (backbone.attention, backbone.patch_tokens):
            with pytest.raises(UserError, match=r"an image side of 40 px .* patches of 16 px.*32 or 48"):
                read(images)
    own = DeitTi16(ViTSettings(depth=1), image_px=32)
    with pytest.raises(UserError, match=r"an image side of 40 px"):
        own.attention(torch.randn(1, 3, 32, 40))


def test_without_fused_attention_the_setting_is_named() -> None:
    backbone = build("xcit_nano_12_p16_224")
    for module in backbone.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    with pytest.raises(UserError, match=r"TIMM_FUSED_ATTN"):
        backbone.attention(torch.randn(1, 3, 32, 32))

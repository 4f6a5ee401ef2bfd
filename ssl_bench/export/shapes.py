"""The sizes of a plain ViT or residual network, read off its tensors under timm's names."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ssl_bench.errors import NotExpressible
from ssl_bench.export.source import Source
from ssl_bench.weights.naming import COMPUTED
from ssl_bench.weights.whole import heads_of, norm_eps

STEM_PX = 7
"""Side of the first convolution of a residual network for ImageNet."""


@dataclass(frozen=True)
class ViTShape:
    """A ViT that is read at its class token: pre-norm blocks with biases, learned positions, nothing else."""

    image_px: int
    patch_px: int
    dim: int
    depth: int
    heads: int
    mlp_dim: int
    norm_eps: float


@dataclass(frozen=True)
class ResNetShape:
    """A residual network with the stem for ImageNet."""

    bottleneck: bool
    depths: tuple[int, int, int, int]
    stem_channels: int
    stage_channels: tuple[int, int, int, int]
    """Of the four outputs."""
    groups: int
    inner_channels: int
    """Of the 3 x 3 convolution of a block of the first stage."""


def vit_shape(source: Source) -> ViTShape | None:
    """None for what is no ViT. Raises `NotExpressible` for a ViT with more or less than the plain one has."""
    tensors = {name: one for name, one in source.tensors.items() if not COMPUTED.fullmatch(name)}
    patch = tensors.get("patch_embed.proj.weight")
    if patch is None or "blocks.0.norm1.weight" not in tensors:
        return None
    blocks = {found[1] for name in tensors if (found := re.match(r"blocks\.(\d+)\.", name))}
    modules = ("patch_embed.proj", "norm", *(f"blocks.{block}.{part}" for block in sorted(blocks) for part in _BLOCK))
    plain = {"cls_token", "pos_embed", *(f"{module}.{kind}" for module in modules for kind in ("weight", "bias"))}
    _refuse(tensors.keys() - plain, "it has tensors that a plain ViT lacks")
    _refuse(plain - tensors.keys(), "it lacks tensors of a plain ViT")
    heads, eps = heads_of(source.backbone), set(norm_eps(source.backbone))
    if heads is None or len(eps) != 1:
        raise NotExpressible("its blocks do not say their number of heads, or their norms differ in epsilon")
    dim, _, height, width = patch.shape
    side = math.isqrt(tensors["pos_embed"].shape[1] - 1)
    if height != width or side * height != source.image_px:
        raise NotExpressible(f"its positions are not those of square images of {source.image_px} px")
    mlp_dim = tensors["blocks.0.mlp.fc1.weight"].shape[0]
    return ViTShape(source.image_px, height, dim, len(blocks), heads, mlp_dim, eps.pop())


_BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


def resnet_shape(source: Source) -> ResNetShape | None:
    """None for what is no residual network. Raises `NotExpressible` for another stem or other layers."""
    tensors = {name: one for name, one in source.tensors.items() if not COMPUTED.fullmatch(name)}
    if "layer1.0.conv1.weight" not in tensors:
        return None
    _refuse([name for name in tensors if not _RESNET.fullmatch(name)], "it has tensors that a plain ResNet lacks")
    stem = tensors["conv1.weight"]
    if stem.shape[-1] != STEM_PX:
        side = stem.shape[-1]
        raise NotExpressible(f"its stem is that of small images ({side} x {side}), and a ResNet's there is 7 x 7")
    if set(norm_eps(source.backbone)) != {1e-5}:
        raise NotExpressible("its norms have another epsilon than 1e-5")
    bottleneck = "layer1.0.conv3.weight" in tensors
    blocks = {(int(stage), int(block)) for name in tensors for stage, block in re.findall(r"^layer(\d)\.(\d+)", name)}
    depths = [sum(stage == wanted for stage, _ in blocks) for wanted in (1, 2, 3, 4)]
    last = "conv3" if bottleneck else "conv2"
    channels = [tensors[f"layer{stage}.0.{last}.weight"].shape[0] for stage in (1, 2, 3, 4)]
    inner = tensors["layer1.0.conv2.weight"]
    return ResNetShape(
        bottleneck, (depths[0], depths[1], depths[2], depths[3]), stem.shape[0],
        (channels[0], channels[1], channels[2], channels[3]), inner.shape[0] // inner.shape[1], inner.shape[0],
    )  # fmt: skip


_RESNET = re.compile(
    r"conv1\.weight|bn1\..+|layer[1-4]\.\d+\.(conv[123]\.weight|bn[123]\..+|downsample\.0\.weight|downsample\.1\..+)"
)


def _refuse(names: Iterable[str], words: str) -> None:
    listed = sorted(names)
    if listed:
        raise NotExpressible(f"{words} ({', '.join(listed[:3])}{', ...' if len(listed) > 3 else ''})")

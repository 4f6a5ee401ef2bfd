"""Feature maps of timm's networks, through their public `forward_intermediates`."""

from __future__ import annotations

from typing import Any

from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ssl_bench.backbone import Capability, Positions

from . import vit_tokens


def why_not(network: Any, name: str) -> dict[Capability, str]:
    """The reason in words where the network has no feature maps."""
    if hasattr(network, "forward_intermediates"):
        return {}
    return {"feature_maps": f"{name} is a {type(network).__name__}, whose maps timm does not show"}


def feature_maps(network: Any, images: Tensor, positions: Positions = "timm") -> tuple[Tensor, ...]:
    """(batch, 3, height, width) -> one (batch, channels, rows, columns) per stage, the finest first.

    Of a network whose blocks all have maps of one size, those at the quarters of its depth.
    """
    if isinstance(network, VisionTransformer):
        return vit_tokens.feature_maps(network, images, positions)
    maps = network.forward_intermediates(images, norm=False, output_fmt="NCHW", intermediates_only=True)
    if len({one.shape[-2:] for one in maps}) > 1:
        return tuple(maps)
    return tuple(maps[index] for index in vit_tokens.quarters(len(maps)))

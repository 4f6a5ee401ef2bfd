"""Tiny networks whose weights the tests save as others save theirs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ssl_bench_plugins.backbones.deit import DeitS16, ViTSettings
from ssl_bench_plugins.backbones.resnet import ResNet18, ResNetSettings

VIT = {"dim": 64, "depth": 2, "heads": 2}
RESNET = {"width": 0.125}
IMAGE_PX = 32


def varied(network: nn.Module) -> nn.Module:
    """The network in eval mode with every parameter and statistic away from its initial value."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            if tensor.is_floating_point() and not name.endswith("running_var"):
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.05)
            elif name.endswith("running_var"):
                tensor.add_(torch.rand(tensor.shape, generator=generator))
    return network.eval()


def vit(seed: int = 0) -> DeitS16:
    torch.manual_seed(seed)
    network = DeitS16(ViTSettings(positions="dino", **VIT), image_px=IMAGE_PX)
    return varied(network)  # type: ignore[return-value]


def resnet(seed: int = 0) -> ResNet18:
    torch.manual_seed(seed)
    network = ResNet18(ResNetSettings(stem="imagenet", **RESNET), image_px=64)
    return varied(network)  # type: ignore[return-value]


def tensors(backbone: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    """A backbone's tensors as timm and torchvision name them, below `prefix`."""
    return {f"{prefix}{name.removeprefix('network.')}": one.clone() for name, one in backbone.state_dict().items()}


def heads(prefix: str, *names: str) -> dict[str, Tensor]:
    return {f"{prefix}{name}": torch.ones(2, 3) for name in names}

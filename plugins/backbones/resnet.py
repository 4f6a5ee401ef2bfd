"""Residual networks (He et al. 2015, arXiv 1512.03385), with a stem for small images and a width.

The blocks are timm's, with the stride in the 3 x 3 convolution as in torchvision's, which the DINO authors use; like
there, the last norm of a block starts at 1. Features are the averages over the last map. Weights and images are kept
channels-last, which the convolutions of CPUs and GPUs run faster on, but for networks of a few channels.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from timm.models.resnet import BasicBlock, Bottleneck
from timm.models.resnet import ResNet as TimmResNet
from torch import Tensor, nn

from ssl_bench.backbone import Backbone, Kind, TimmModel
from ssl_bench.blocks.recompute import recompute
from ssl_bench.errors import NotExpressible
from ssl_bench.settings import Settings, setting

SMALL_IMAGE_PX = 64
"""Up to this side the stem keeps the resolution."""
STEM_CHANNELS = 64
"""Of a network of width 1."""
LEAST_CHANNELS_LAST = 8
"""Channels from which channels-last is used: with fewer, oneDNN of torch 2.14 writes out of bounds in the backward pass
of a strided 1 x 1 convolution (segmentation faults and hangs on CPUs with AVX2)."""


class ResNetSettings(Settings):
    """What can be changed in a named residual network."""

    stem: Literal["auto", "imagenet", "cifar"] = setting(
        "auto",
        "First layers: imagenet (7x7, stride 2, max-pool), cifar (3x3, stride 1, no pool), auto: cifar up to 64 px.",
        source="He et al., section 4.2; SimCLR, appendix B.9",
    )
    width: float | None = setting(
        None,
        "Factor on the number of channels of every layer; null: the architecture's own.",
        source="SimCLR, section 4.2",
        gt=0,
    )
    stem_padding: int | None = setting(
        None,
        "Zeros on each side of the image in the first convolution; null: half of the kernel, 3 or 1. solo-learn's "
        "networks for CIFAR have 2.",
        unit="px",
        source="He et al., section 4.2; solo/methods/base.py of solo-learn",
        ge=0,
        le=8,
    )


class ResNet(Backbone):
    """Residual network with average-pooled features."""

    Config = ResNetSettings
    kind: Kind = "convnet"
    supports = frozenset({"feature_maps"})
    why_not = dict.fromkeys(
        ("attention", "patch_tokens", "masking"), "it is a convolutional network, without patches or CLS token"
    )
    block: ClassVar[Any] = Bottleneck
    layers: ClassVar[tuple[int, int, int, int]] = (3, 4, 6, 3)
    own_width: ClassVar[float] = 1.0
    timm_name: ClassVar[str] = ""
    """timm's network of width 1 with the stem of ImageNet; empty where it has none."""

    def __init__(self, config: ResNetSettings, *, image_px: int, drop_path: float = 0.0) -> None:
        super().__init__(config, image_px=image_px, drop_path=drop_path)
        self.patch_px = None
        self.image_px = image_px
        half_stem = max(1, round(32 * (config.width or self.own_width)))
        stem_channels = 2 * half_stem
        network: Any = TimmResNet(
            self.block,
            self.layers,
            num_classes=0,
            stem_type="deep",  # the one type whose width timm lets choose; its convolutions are replaced below
            stem_width=half_stem,
            channels=tuple(stem_channels * factor for factor in (1, 2, 4, 8)),
            zero_init_last=False,
            drop_path_rate=drop_path,
        )
        small = config.stem == "cifar" or (config.stem == "auto" and image_px <= SMALL_IMAGE_PX)
        kernel, stride = (3, 1) if small else (7, 2)
        padding = kernel // 2 if config.stem_padding is None else config.stem_padding
        stem = nn.Conv2d(3, stem_channels, kernel, stride=stride, padding=padding, bias=False)
        nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
        network.conv1 = stem
        if small:
            network.maxpool = nn.Identity()
        self.feature_dim = int(network.num_features)
        self.network = network
        self._format = torch.channels_last if stem_channels >= LEAST_CHANNELS_LAST else torch.contiguous_format
        self.to(memory_format=self._format)

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, feature_dim): the last map's averages."""
        return self.network.forward_head(self.feature_maps(images)[-1])  # type: ignore[no-any-return]

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """The outputs of the four stages, at 1/4, 1/8, 1/16 and 1/32 of the image; with the small stem 1/1 to 1/8."""
        network = self.network
        maps = network.conv1(images.contiguous(memory_format=self._format))
        maps = network.maxpool(network.act1(network.bn1(maps)))
        outputs = []
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            for block in stage:
                maps = recompute(block, block, maps) if network.grad_checkpointing else block(maps)
            outputs.append(maps)
        return tuple(outputs)

    def timm_model(self) -> TimmModel:
        """timm's network of this name. Raises `NotExpressible` for the small stem and other widths."""
        stem = self.network.conv1
        if not self.timm_name:
            raise NotExpressible("timm has no residual network of these blocks and this width")
        if stem.kernel_size != (7, 7):
            raise NotExpressible("its stem is that of small images (3 x 3, no max-pool), and timm's is 7 x 7")
        if stem.padding != (3, 3):
            raise NotExpressible(f"its stem pads by {stem.padding[0]} px, and timm's always by 3")
        if stem.out_channels != STEM_CHANNELS:
            raise NotExpressible(f"its stem has {stem.out_channels} channels, and timm's always has {STEM_CHANNELS}")
        return TimmModel(self.timm_name, {})

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """Block by block, as the base class says; running statistics move once a step."""
        self.network.set_grad_checkpointing(enabled)


class ResNet18(ResNet):
    """ResNet-18: basic blocks (2, 2, 2, 2), 512 features, 11 M parameters."""

    check_settings = {"width": 0.125}  # noqa: RUF012
    block = BasicBlock
    layers = (2, 2, 2, 2)
    timm_name = "resnet18"


class ResNet50(ResNet):
    """ResNet-50: bottleneck blocks (3, 4, 6, 3), 2048 features, 23 M parameters."""

    timm_name = "resnet50"


class ResNet50w2(ResNet50):
    """ResNet-50 (2x): every layer twice as wide, 93 M parameters (SimCLR, section 4.2)."""

    own_width = 2.0


class ResNet50w4(ResNet50):
    """ResNet-50 (4x): every layer four times as wide, 375 M parameters."""

    own_width = 4.0


class ResNet50w5(ResNet50):
    """ResNet-50 (5x): every layer five times as wide, 586 M parameters (SwAV, section 4)."""

    own_width = 5.0


class ResNet200w2(ResNet):
    """ResNet-200 (2x): bottleneck blocks (3, 24, 36, 3), twice as wide, 250 M parameters (BYOL, section 4)."""

    layers = (3, 24, 36, 3)
    own_width = 2.0

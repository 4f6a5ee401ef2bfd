"""Raw pixels: the lower baseline of a comparison, what the evaluators find without any network (unpublished).

The image, normalized by channel as every network sees it, averaged down to `side_px` and flattened. There are no
weights, so nothing can be trained: `sslbench run random --arch pixels` gives the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor
from torch.nn import functional

from ssl_bench.backbone import Backbone, Kind
from ssl_bench.settings import Settings, setting


class PixelsSettings(Settings):
    """What decides the vector."""

    side_px: int = setting(32, "Side to which larger images are averaged down first.", unit="px", ge=1)


class Pixels(Backbone):
    """Raw pixels as features, without any weights."""

    Config = PixelsSettings
    kind: Kind = "convnet"
    why_not = dict.fromkeys(
        ("attention", "patch_tokens", "masking", "feature_maps"), "it has no layers: its features are the pixels"
    )
    expected_failures: ClassVar[Mapping[str, str]] = {
        "initial weights come from the global random state": "it has no weights",
        "every parameter gets a gradient": "it has no weights",
    }

    def __init__(self, config: PixelsSettings, *, image_px: int, drop_path: float = 0.0) -> None:
        super().__init__(config, image_px=image_px, drop_path=drop_path)
        self.patch_px = None
        self.image_px = image_px
        self.side_px = min(config.side_px, image_px)
        self.feature_dim = 3 * self.side_px**2

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, 3 * side_px ** 2): areas averaged, channel by channel."""
        if images.shape[-2:] != (self.side_px, self.side_px):
            images = functional.adaptive_avg_pool2d(images, self.side_px)
        return images.flatten(1)

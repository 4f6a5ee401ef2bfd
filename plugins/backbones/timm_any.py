"""Any network that timm knows by name, untrained: `--arch timm:convnext_tiny`.

Features are what timm pools for its classifier. A VisionTransformer with a CLS token also shows its patch tokens and
attention and takes any image size that its patches divide.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

import timm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ssl_bench.backbone import Backbone
from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.patches import check_whole_patches
from ssl_bench.settings import Settings, setting

from . import vit_tokens


class TimmSettings(Settings):
    """Which network."""

    name: str = setting(..., "Name of the network in timm.list_models().", source="timm")


class TimmAny(Backbone):
    """Any network of timm's by its name."""

    Config = TimmSettings
    kind: ClassVar[Literal["vit", "convnet"]] = "convnet"

    def __init__(self, config: TimmSettings, *, image_px: int, drop_path: float = 0.0) -> None:
        super().__init__(config, image_px=image_px, drop_path=drop_path)
        if not timm.is_model(config.name):
            known = timm.list_models()
            raise UserError(
                f"timm has no network called {config.name!r}.{did_you_mean(config.name, known)} It knows {len(known)}: "
                'python -c "import timm; print(timm.list_models())"'
            )
        network = _create(config.name, image_px, drop_path)
        self.network = network
        self.image_px = image_px
        self.feature_dim = int(getattr(network, "head_hidden_size", None) or network.num_features)
        self.patch_px = None
        if isinstance(network, VisionTransformer):
            self.patch_px = vit_tokens.patch_px(network)
            check_whole_patches("an image", image_px, self.patch_px)
            if vit_tokens.shows_attention(network):
                self.supports = frozenset({"patch_tokens", "attention"})

    @classmethod
    def patch_px_for(cls, config: TimmSettings, image_px: int) -> int | None:
        """Read from the name, e.g. 16 of vit_small_patch16_224; None where it does not say."""
        found = re.search(r"_(?:patch|p)(\d+)(?:_|$)", config.name)
        return int(found.group(1)) if found else None

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, feature_dim): the features that timm's classifier would read."""
        if self.supports and self.network.global_pool == "token":
            return vit_tokens.cls_token(self.network, images)
        return self.network(images)  # type: ignore[no-any-return]

    def patch_tokens(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, feature_dim, rows, columns), after the final norm."""
        return vit_tokens.patch_tokens(self.network, images) if self.supports else super().patch_tokens(images)

    def attention(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, heads, rows, columns): the last block's CLS query on the patches."""
        return vit_tokens.cls_attention(self.network, images) if self.supports else super().attention(images)


def _create(name: str, image_px: int, drop_path: float) -> Any:
    """The network with as much as its constructor understands of size and drop path."""
    sized: dict[str, Any] = {"img_size": image_px}
    dropped: dict[str, Any] = {"drop_path_rate": drop_path}
    attempts = [{"dynamic_img_size": True, **sized, **dropped}, {**sized, **dropped}, dropped]
    for arguments in attempts:
        try:
            return timm.create_model(name, pretrained=False, num_classes=0, **arguments)
        except TypeError:
            continue
    if drop_path:
        raise UserError(f"{name} has no stochastic depth: set the method's drop_path to 0")
    return timm.create_model(name, pretrained=False, num_classes=0)

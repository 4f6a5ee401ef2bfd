"""Any network that timm knows by name, untrained: `--arch timm:convnext_tiny`.

Features are what timm pools for its classifier. Transformers of patches take any image size that their patches divide,
and show their patch tokens; those whose features are a CLS token show its attention. What a network does not show, it
says why (`timm_attention`).
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal

import timm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from ssl_bench.backbone import Backbone
from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.patches import check_whole_patches
from ssl_bench.settings import Settings, setting

from . import timm_attention, vit_tokens


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
        if timm_attention.has_patches(network):
            self.patch_px = vit_tokens.patch_px(network)
            check_whole_patches("an image", image_px, self.patch_px)
        self.why_not = timm_attention.why_not(network, config.name)
        self.supports = frozenset({"patch_tokens", "attention"}) - self.why_not.keys()
        # timm's pooling takes the CLS token as it is: then the last block need not compute the other tokens
        self._cls_only = (
            type(network) is VisionTransformer and "attention" in self.supports and type(network.fc_norm) is nn.Identity
        )

    @classmethod
    def patch_px_for(cls, config: TimmSettings, image_px: int) -> int | None:
        """Read from the name, e.g. 16 of vit_small_patch16_224; None where it does not say."""
        found = re.search(r"_(?:patch|p)(\d+)(?:_|$)", config.name)
        return int(found.group(1)) if found else None

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, feature_dim): the features that timm's classifier would read."""
        if self._cls_only:
            return vit_tokens.cls_token(self.network, images)
        return self.network(images)  # type: ignore[no-any-return]

    def patch_tokens(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, feature_dim, rows, columns), as the network's last norm leaves them."""
        if "patch_tokens" in self.why_not:
            raise NotImplementedError(self.why_not["patch_tokens"])
        return timm_attention.patch_tokens(self.network, images)

    def attention(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, heads, rows, columns): the last CLS query on the patches."""
        if "attention" in self.why_not:
            raise NotImplementedError(self.why_not["attention"])
        return timm_attention.cls_attention(self.network, images)


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

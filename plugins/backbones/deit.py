"""Vision transformers: DeiT-Ti, DeiT-S and ViT-B with patches of 16, 8 or 5 px (arXiv 2010.11929, 2012.12877).

The networks are timm's; DeiT and ViT of one size are the same network. With positions = "dino" they equal DINO's
vision_transformer.py at every size; "timm" resamples positions with antialiasing. Features are the CLS token after the
final norm. Images must divide into whole patches: the authors' code ignores the last 4 px of 224 with
patches of 5 px; here deit_s5 wants 220 px (what they in effect used) or 225, and says so.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from ssl_bench.backbone import Backbone, BothFeatures, Kind, Positions, TimmModel, Tokens
from ssl_bench.blocks.patch_sizes import check_whole_patches
from ssl_bench.errors import UserError
from ssl_bench.settings import Settings, setting

from . import vit_tokens
from .vit_positions import fit_positions

HEAD_DIM = 64
"""Width of a head in every standard size (DeiT, Table 1)."""


class ViTSettings(Settings):
    """What can be changed in a named transformer; left open (null), a setting is the architecture's own."""

    patch_px: int | None = setting(None, "Side of a patch.", unit="px", source="the architecture", ge=1)
    depth: int | None = setting(None, "Number of blocks.", unit="blocks", source="the architecture", ge=1, le=1000)
    dim: int | None = setting(None, "Width of the tokens.", source="the architecture", ge=8)
    heads: int | None = setting(
        None, "Attention heads; null: one for every 64 of the width.", source="DeiT, Table 1", ge=1
    )
    positions: Positions | None = setting(
        None,
        "How learned positions are resampled for views and images of another size: as DINO's code or as timm; null: "
        "dino for the method DINO, else timm.",
        source="vision_transformer.py interpolate_pos_encoding; timm resample_abs_pos_embed",
    )


class ViT(Backbone):
    """Vision transformer of 12 blocks, read at its CLS token."""

    Config = ViTSettings
    kind: Kind = "vit"
    supports = frozenset({"patch_tokens", "attention", "masking", "feature_maps"})
    settings_before: ClassVar[Mapping[str, Any]] = {"positions": "timm"}
    own_patch_px: ClassVar[int] = 16
    own_dim: ClassVar[int] = 384
    own_depth: ClassVar[int] = 12
    timm_name: ClassVar[str] = "vit_small_patch16_224"
    """timm's network of this width."""
    probe_blocks: ClassVar[int] = 4
    """How many last blocks' CLS tokens the linear probe reads (DINO, appendix F.2)."""
    probe_mean_patch: ClassVar[bool] = False
    """Whether it also reads the mean patch token of the last block."""

    def __init__(self, config: ViTSettings, *, image_px: int, drop_path: float = 0.0) -> None:
        super().__init__(config, image_px=image_px, drop_path=drop_path)
        self.patch_px = self.patch_px_for(config, image_px)
        self.image_px = image_px
        self.positions: Positions = config.positions or "timm"
        self.feature_dim = config.dim or self.own_dim
        heads = config.heads or max(1, self.feature_dim // HEAD_DIM)
        check_whole_patches("an image", image_px, self.patch_px)
        if self.feature_dim % heads:
            raise UserError(
                f"a width of {self.feature_dim} does not divide into {heads} heads: set backbone.heads to a divisor "
                f"of it, or backbone.dim to a multiple of {HEAD_DIM}"
            )
        self.network: Any = VisionTransformer(
            img_size=image_px,
            patch_size=self.patch_px,
            num_classes=0,
            embed_dim=self.feature_dim,
            depth=config.depth or self.own_depth,
            num_heads=heads,
            drop_path_rate=drop_path,
            dynamic_img_size=True,
        )
        vit_tokens.draw_cls_token_as_dino(self.network)

    @classmethod
    def patch_px_for(cls, config: ViTSettings, image_px: int) -> int:
        """The configured patch, or the architecture's own."""
        return config.patch_px or cls.own_patch_px

    @classmethod
    def fill(cls, config: ViTSettings, image_px: int, defaults: Mapping[str, Any]) -> ViTSettings:
        """Positions as the method wants them, else as timm."""
        return super().fill(config, image_px, {"positions": "timm", **defaults})  # type: ignore[no-any-return]

    def fit_weights(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Positions of another image size are resampled by this network's rule."""
        return fit_positions(self.network, weights, self.positions, "network.pos_embed")

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, feature_dim): the CLS token after the final norm."""
        return vit_tokens.cls_token(self.network, images, self.positions)

    def probe_features(self, images: Tensor) -> Tensor:
        """CLS tokens of the last blocks, each through the final norm, and for ViT-B the mean patch token.

        (batch, 3, height, width) -> (batch, feature_dim * n): n is 4 for Ti and S (blocks 9 to 12 in order), 2 for B.
        Source: DINO, appendix F.2, and eval_linear.py's help for --n_last_blocks and --avgpool_patchtokens.
        """
        outputs = vit_tokens.block_outputs(self.network, images, self.positions)
        return self._read_by_probe(deque(outputs, maxlen=self.probe_blocks))

    @property
    def probe_reads(self) -> str:
        """E.g. "CLS tokens of the last 4 blocks"."""
        blocks = min(self.probe_blocks, len(self.network.blocks))
        tokens = f"CLS tokens of the last {blocks} blocks" if blocks > 1 else "CLS token of the last block"
        return f"{tokens} and the mean patch token" if self.probe_mean_patch else tokens

    def both_features(self, images: Tensor) -> BothFeatures:
        """As the base class says, in one pass."""
        cls, outputs = vit_tokens.cls_token_and_outputs(self.network, images, self.probe_blocks, self.positions)
        return BothFeatures(cls, self._read_by_probe(outputs))

    def _read_by_probe(self, outputs: Iterable[Tensor]) -> Tensor:
        """`probe_features` of what the last `probe_blocks` blocks leave."""
        last = [self.network.norm(tokens) for tokens in outputs]
        read = [tokens[:, 0] for tokens in last]
        if self.probe_mean_patch:
            read.append(last[-1][:, 1:].mean(dim=1))
        return torch.cat(read, dim=1)

    def tokens(
        self,
        images: Tensor,
        *,
        mask: Tensor | None = None,
        mask_token: Tensor | None = None,
        keep: Tensor | None = None,
    ) -> Tokens:
        """As the base class says, with masks and kept patches."""
        selection = vit_tokens.Selection(mask, mask_token, keep)
        return vit_tokens.tokens(self.network, images, self.positions, selection)

    def attention(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, heads, rows, columns): the last block's CLS query on the patches."""
        return vit_tokens.cls_attention(self.network, images, self.positions)

    def feature_maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """Outputs of the blocks at the quarters of the depth (3, 6, 9 and 12 of 12), as the base class says."""
        return vit_tokens.feature_maps(self.network, images, self.positions)

    def timm_model(self) -> TimmModel:
        """timm's network of this width with the sizes that were changed.

        For one image size where positions are not resampled as timm does.
        """
        network = self.network
        arguments: dict[str, Any] = {
            "img_size": self.image_px,
            "patch_size": self.patch_px,
            "embed_dim": self.feature_dim,
            "depth": len(network.blocks),
            "num_heads": network.blocks[0].attn.num_heads,
        }
        if self.positions == "timm":
            arguments["dynamic_img_size"] = True
        return TimmModel(self.timm_name, arguments)

    def set_activation_checkpointing(self, enabled: bool) -> None:
        """Block by block, as the base class says."""
        self.network.set_grad_checkpointing(enabled)


class DeitTi16(ViT):
    """DeiT-Ti/16: 12 blocks, width 192, 3 heads, 5.5 M parameters."""

    own_dim = 192
    timm_name = "vit_tiny_patch16_224"
    check_settings = {"patch_px": 8, "depth": 2, "dim": 64}  # noqa: RUF012


class DeitS16(ViT):
    """DeiT-S/16 (ViT-S/16): 12 blocks, width 384, 6 heads, 21 M parameters."""


class DeitS8(ViT):
    """DeiT-S/8: DeiT-S with patches of 8 px, 785 tokens at 224 px."""

    own_patch_px = 8


class DeitS5(ViT):
    """DeiT-S/5: DeiT-S with patches of 5 px; wants images of 220 or 225 px, as 5 does not divide 224."""

    own_patch_px = 5


class VitB16(ViT):
    """ViT-B/16: 12 blocks, width 768, 12 heads, 85 M parameters."""

    own_dim = 768
    timm_name = "vit_base_patch16_224"
    probe_blocks = 1
    probe_mean_patch = True


class VitB8(VitB16):
    """ViT-B/8: ViT-B with patches of 8 px, 785 tokens at 224 px."""

    own_patch_px = 8

"""Which of timm's networks show CLS attention and patch tokens, why the others do not, and how those that do are read.

- VisionTransformer (ViT, DeiT, distilled DeiT, DINOv2 with registers): `vit_tokens`.
- Eva (rotary positions) and XCiT: their own forward pass runs as it is, with fused attention, and the query and key
  of the last attention are kept on the way. XCiT's cross-covariance attention mixes channels, not patches; but its last
  blocks are class attention, a CLS query over all patches, which is what its DINO models are shown by (El-Nouby et al.
  2021, arXiv 2106.09681).

A CLS token that the features do not read (mean or attention pooling) is refused: nothing trains its query in the last
block. Its patch tokens are shown.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from timm.models.xcit import Xcit
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ssl_bench.backbone import Capability, Positions, Tokens
from ssl_bench.errors import UserError

from . import vit_tokens

OTHERS = (
    ("Swin", "attends within windows and has no CLS token"),
    ("Beit", "ties its positions to images of one size"),
    ("VisionTransformerRelPos", "ties its positions to images of one size"),
    ("Cait", "ties its positions to images of one size"),
)
"""Beginning of a class's name, and why its networks show nothing."""


def has_patches(network: Any) -> bool:
    """Whether it is of a kind whose patch tokens can be read, at any size that its patches divide."""
    return isinstance(network, VisionTransformer | Eva | Xcit)


def why_not(network: Any, name: str) -> dict[Capability, str]:
    """What the network does not offer, each with the reason in words; empty when it offers all."""
    if not has_patches(network):
        kind = type(network).__name__
        known = next((reason for start, reason in OTHERS if kind.startswith(start)), None)
        reason = known or f"is a {kind}, which has no CLS token that attends to patches"
        return dict.fromkeys(("attention", "patch_tokens", "masking"), f"{name} {reason}")
    reasons: dict[Capability, str] = {}
    if not isinstance(network, VisionTransformer):
        reasons["masking"] = f"{name} is a {type(network).__name__}, whose blocks read positions of the whole image"
    if getattr(network, "cls_token", None) is None:
        reasons["attention"] = f"{name} has no CLS token (it pools its patches)"
    elif network.global_pool != "token":
        reasons["attention"] = f"{name} pools its patches, so that nothing trains its CLS token's last query"
    elif isinstance(network, VisionTransformer) and not vit_tokens.shows_attention(network):
        last_block = type(network.blocks[-1]).__name__
        reasons["attention"] = f"{name} ends in a {last_block}, whose attention is not read here"
    return reasons


def cls_attention(network: Any, images: Tensor, positions: Positions = "timm") -> Tensor:
    """(batch, 3, height, width) -> (batch, heads, rows, columns): the last CLS query on the patches.

    A softmax over all tokens, of which the patches' share is returned. `positions` other than timm's is for
    VisionTransformer only. Raises `UserError` for sizes that patches do not divide.
    """
    if isinstance(network, VisionTransformer):
        return vit_tokens.cls_attention(network, images, positions)
    grid = vit_tokens.grid(network, images)
    with _LastAttention() as last:
        network.forward_features(images)
    if last.query is None or last.key is None:
        raise UserError("timm's fused attention is off, from which attention is read: unset TIMM_FUSED_ATTN")
    products = last.query[:, :, :1] @ last.key.transpose(-2, -1) * last.query.shape[-1] ** -0.5
    weights = products.to(torch.promote_types(products.dtype, torch.float32)).softmax(dim=-1)
    patches: Tensor = weights[:, :, 0, network.num_prefix_tokens :]
    return patches.reshape(*patches.shape[:2], *grid)


def tokens(
    network: Any, images: Tensor, positions: Positions = "timm", selection: vit_tokens.Selection = vit_tokens.WHOLE
) -> Tokens:
    """(batch, 3, height, width) -> tokens as they leave `forward_features`; errors as above.

    A selection is for VisionTransformer only.
    """
    if isinstance(network, VisionTransformer):
        return vit_tokens.tokens(network, images, positions, selection)
    shape = vit_tokens.grid(network, images)
    return vit_tokens.split(network, network.forward_features(images), shape)


class _LastAttention(TorchFunctionMode):
    """Keeps query and key (batch, heads, tokens, head_dim) of the last fused attention that runs inside."""

    query: Tensor | None = None
    key: Tensor | None = None

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is functional.scaled_dot_product_attention:
            self.query, self.key = args[:2]
        return function(*args, **(kwargs or {}))

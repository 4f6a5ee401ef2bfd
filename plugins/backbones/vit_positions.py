"""Learned positions of a ViT at another image size, as the authors of DINO and of MAE resample them.

    interpolate_pos_encoding(x, w, h) in vision_transformer.py of github.com/facebookresearch/dino (commit 7c446df):
    bicubic with torch's a = -0.75 and no antialiasing, scale factor (side + 0.1) / grid in each direction

The 0.1 once kept the output from being one row short; it also shifts where the table is read, so it is part of the
rule. MAE's interpolate_pos_embed (util/pos_embed.py of github.com/facebookresearch/mae, commit efb2a80) and
transformers do the same without it. timm's own rule (antialiased, a = -0.5, exact scale factors) is timm's
`resample_abs_pos_embed`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor
from torch.nn.functional import interpolate

from ssl_bench.backbone import Positions

ADDED = {"dino": 0.1, "mae": 0.0}
"""To each side, in patches; `w0, h0 = w0 + 0.1, h0 + 0.1` in DINO's code."""


def resample(table: Tensor, grid: tuple[int, int], wanted: tuple[int, int], added: float) -> Tensor:
    """(1, rows * columns, dim) of `grid` (rows, columns) -> (1, wanted rows * columns, dim).

    `added` to each wanted side gives the scale factors: 0.1 by DINO's rule, 0 by MAE's. At its own grid
    the table is returned as it is.
    """
    if grid == wanted:
        return table
    factors = [(side + added) / own for side, own in zip(wanted, grid, strict=True)]
    as_map = table.view(1, *grid, -1).permute(0, 3, 1, 2)
    if added:
        resampled = interpolate(as_map, scale_factor=factors, mode="bicubic")
    else:
        resampled = interpolate(as_map, size=wanted, mode="bicubic")
    assert tuple(resampled.shape[-2:]) == wanted
    return resampled.flatten(2).transpose(1, 2)


def fit_positions(vit: Any, weights: Mapping[str, Tensor], positions: Positions, name: str) -> dict[str, Tensor]:
    """Weights whose learned positions, the tensor `name`, are resampled to `vit`'s grid where they are of another.

    Only square grids are resampled, since a table does not tell the sides of others; what does not fit stays as it is.
    """
    fitted = dict(weights)
    table, own = fitted.get(name), getattr(vit, "pos_embed", None)
    if table is None or own is None or table.ndim != 3 or table.shape[::2] != own.shape[::2]:
        return fitted
    learned = 0 if vit.no_embed_class else vit.num_prefix_tokens
    side = math.isqrt(max(0, table.shape[1] - learned))
    if table.shape == own.shape or side**2 != table.shape[1] - learned or not side:
        return fitted
    wanted = tuple(vit.patch_embed.grid_size)
    prefix, patches = table.float().tensor_split([learned], dim=1)
    if positions == "timm":
        patches = resample_abs_pos_embed(patches, list(wanted), [side, side], num_prefix_tokens=0)
    else:
        patches = resample(patches, (side, side), wanted, ADDED[positions])
    fitted[name] = torch.cat([prefix, patches], dim=1)
    return fitted


def add_positions(vit: Any, patches: Tensor, added: float) -> Tensor:
    """(batch, rows, columns, dim) -> (batch, tokens, dim): prefix tokens in front, positions as `resample` has them.

    `vit` is a timm VisionTransformer with `dynamic_img_size` and learned positions; otherwise as its `_pos_embed`.
    """
    learned = 0 if vit.no_embed_class else vit.num_prefix_tokens
    table: Tensor = vit.pos_embed
    rows, columns = patches.shape[1:3]
    resampled = resample(table[:, learned:], vit.patch_embed.grid_size, (rows, columns), added)
    tokens = patches.flatten(1, 2)
    prefix = [token.expand(tokens.shape[0], -1, -1) for token in (vit.cls_token, vit.reg_token) if token is not None]
    if vit.no_embed_class:
        tokens = torch.cat([*prefix, tokens + resampled], dim=1)
    else:
        tokens = torch.cat([*prefix, tokens], dim=1) + torch.cat([table[:, :learned], resampled], dim=1)
    return vit.pos_drop(tokens)  # type: ignore[no-any-return]

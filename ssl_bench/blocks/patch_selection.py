"""Masked and kept patches of a transformer: replaced embeddings (BEiT, iBOT, SimMIM) and left-out ones (MAE).

A backbone with the capability "masking" does in `Backbone.tokens`, in this order: embed all patches, `replace_masked`,
add positions, `select_kept`, run the blocks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_bench.errors import UserError


def check_selection(
    batch: int, patches: int, dim: int, mask: Tensor | None, mask_token: Tensor | None, keep: Tensor | None
) -> None:
    """Raises `UserError` for a mask, a mask token or kept patches that do not fit (batch, patches, dim) embeddings.

    Positions in `keep` are compared with the number of patches on a CPU only: on a GPU that would wait for it, and
    `select_kept` fails there by itself.
    """
    if (mask is None) != (mask_token is None):
        given, missing = ("mask", "mask_token") if mask_token is None else ("mask_token", "mask")
        raise UserError(f"tokens() got {given} without {missing}: give both, or neither")
    if mask is not None and mask_token is not None:
        if mask.dtype != torch.bool or tuple(mask.shape) != (batch, patches):
            raise UserError(f"mask is {_described(mask)}: give bool of shape (batch, patches) = ({batch}, {patches})")
        if not mask_token.is_floating_point() or tuple(mask_token.shape) != (dim,):
            raise UserError(f"mask_token is {_described(mask_token)}: give floats of shape (dim,) = ({dim},)")
    if keep is not None:
        if keep.dtype != torch.int64 or keep.ndim != 2 or len(keep) != batch or keep.shape[1] == 0:
            raise UserError(f"keep is {_described(keep)}: give int64 of shape (batch, kept) = ({batch}, 1 or more)")
        if type(keep) is Tensor and keep.device.type == "cpu" and not 0 <= int(keep.min()) <= int(keep.max()) < patches:
            raise UserError(
                f"keep names patches {int(keep.min())} to {int(keep.max())}: the image has {patches}, from 0 to "
                f"{patches - 1}"
            )


def replace_masked(embeddings: Tensor, mask: Tensor, mask_token: Tensor) -> Tensor:
    """(batch, patches, dim) with `mask_token` (dim,) where `mask` (batch, patches) is True; gradients reach both."""
    return torch.where(mask[..., None], mask_token.to(embeddings.dtype), embeddings)


def select_kept(embeddings: Tensor, keep: Tensor) -> Tensor:
    """(batch, patches, dim) -> (batch, kept, dim): those at `keep` (batch, kept), in its order."""
    return embeddings.gather(1, keep[..., None].expand(-1, -1, embeddings.shape[-1]))


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {tuple(tensor.shape)}"

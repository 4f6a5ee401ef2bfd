"""Sinkhorn-Knopp: soft assignments of a batch to prototypes, each prototype used equally (arXiv 2006.09882, eq. 3)."""

from __future__ import annotations

import torch
from torch import Tensor


@torch.no_grad()
def sinkhorn(scores: Tensor, temperature: float, iterations: int) -> Tensor:
    """(..., batch, prototypes) similarities -> probabilities of the same shape; rows sum to 1.

    Q starts as exp(scores / temperature). Each iteration first makes every prototype receive the same total over the
    batch, then every sample give a total of 1 (SwAV's epsilon is the temperature). In float32 at least, with the
    largest score taken off first, which changes nothing but the risk of overflow.
    """
    scores = scores if scores.dtype == torch.float64 else scores.float()
    exponents = scores / temperature
    assigned = exponents.sub_(exponents.amax(dim=(-2, -1), keepdim=True)).exp_()  # in place: it may be a large tensor
    for _ in range(iterations):
        assigned /= assigned.sum(dim=-2, keepdim=True).clamp_min(torch.finfo(assigned.dtype).tiny)
        assigned /= assigned.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(assigned.dtype).tiny)
    return assigned
